"""Hashes of words and of runs of words, computed for a whole text at once in numpy.

Everything that compares texts (near-duplicates, decontamination, classifiers) stands on these two functions. The
hashes are the same in every process and on every machine; they are no defence against somebody who looks for
collisions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def _tables(extra: bytes) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_" + extra:
        table[byte] = byte
    return table


_CODE_TABLE = _tables(b"")
"""bigcode's words: runs of [A-Za-z_0-9], case kept."""
_TEXT_TABLE = _tables(bytes(range(128, 256)))
for _byte in range(65, 91):
    _TEXT_TABLE[_byte] = _byte + 32
"""Words of any script, ASCII letters in lower case."""


class _Powers:
    """Powers of an odd number and of its inverse modulo 2**64, grown as texts need them."""

    def __init__(self, base: int) -> None:
        self.factors = (base, pow(base, -1, 1 << 64))
        self.known = [np.ones(1, dtype=np.uint64)] * 2

    def upto(self, count: int) -> tuple[Hashes, Hashes]:
        if len(self.known[0]) < count:
            for place, factor in enumerate(self.factors):
                factors = np.full(max(count, 65_536), factor, dtype=np.uint64)
                factors[0] = 1
                self.known[place] = np.multiply.accumulate(factors)
        return self.known[0][:count], self.known[1][:count]


_POWERS = _Powers(0x9E3779B97F4A7C15 | 1)
"""For the letters of a word."""
_RUN_POWERS = _Powers(0xD6E8FEB86659FD93)
"""For the words of a run."""
_BLOCK = 1 << 20


def mix(values: Hashes) -> Hashes:
    """The finalizer of splitmix64: spreads every bit over all bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def word_spans(text: bytes, *, lower: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Start and end of every word in bytes, and the bytes with everything between words set to 0."""
    table = _TEXT_TABLE if lower else _CODE_TABLE
    letters = table[np.frombuffer(text, dtype=np.uint8)]
    inside = np.zeros(len(letters) + 2, dtype=np.int8)
    inside[1:-1] = letters != 0
    edges = np.diff(inside)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), letters


def word_hashes(text: str, *, lower: bool = False) -> Hashes:
    """One hash for each word of `text`. `lower` folds ASCII case and counts all non-ASCII letters as word letters."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= _BLOCK:
        return _hash_words(raw, lower)
    blocks, start = [], 0
    while start < len(raw):
        end = start + _BLOCK
        if end < len(raw):  # cut between words, so that the memory stays bounded and the words stay whole
            newline = max(raw.rfind(b"\n", start, end), raw.rfind(b" ", start, end))
            end = newline + 1 if newline > start else end
        blocks.append(_hash_words(raw[start:end], lower))
        start = end
    return np.concatenate(blocks)


def word_hashes_of(texts: Sequence[str], *, lower: bool = False) -> tuple[Hashes, NDArray[np.int64]]:
    """`word_hashes` of many texts at once, and the place of each text's first word, with the number of words at the end.

    A call of numpy costs more than the work on a short text: of a thousand texts, this is several times as fast.
    """
    words: list[Hashes] = []
    bounds = [np.zeros(1, dtype=np.int64)]
    count = 0
    waiting: list[bytes] = []

    def take(more: Hashes, ends: NDArray[np.int64]) -> None:
        nonlocal count
        words.append(more)
        bounds.append(ends + count)
        count += len(more)

    def flush() -> None:
        raw = b"\n".join(waiting)
        starts, ends, letters = word_spans(raw, lower=lower)
        # Where each text ends; there is a line break behind it, so that no word goes on.
        edges = np.cumsum([len(text) + 1 for text in waiting])
        take(_hash_spans(starts, ends, letters), np.searchsorted(starts, edges))
        waiting.clear()

    size = 0
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if waiting and size + len(raw) > _BLOCK:
            flush()
            size = 0
        if len(raw) > _BLOCK:
            own = word_hashes(text, lower=lower)
            take(own, np.array([len(own)]))
        else:
            waiting.append(raw)
            size += len(raw) + 1
    if waiting:
        flush()
    return np.concatenate([*words, np.empty(0, dtype=np.uint64)]), np.concatenate(bounds)


def _hash_words(raw: bytes, lower: bool) -> Hashes:
    return _hash_spans(*word_spans(raw, lower=lower))


def _hash_spans(starts: NDArray[np.int64], ends: NDArray[np.int64], letters: NDArray[np.uint8]) -> Hashes:
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    base, inverse = _POWERS.upto(len(letters) + 1)
    prefix = np.zeros(len(letters) + 1, dtype=np.uint64)
    np.cumsum(letters * base[: len(letters)], out=prefix[1:])
    return mix((prefix[ends] - prefix[starts]) * inverse[starts])


class Runs:
    """Sums of runs of words, of any length, from sums of all words before a place: arithmetic modulo 2**64 is exact."""

    def __init__(self, words: Hashes) -> None:
        powers, self.inverse = _RUN_POWERS.upto(len(words) + 1)
        self.before = np.zeros(len(words) + 1, dtype=np.uint64)
        np.cumsum(words * powers[: len(words)], out=self.before[1:])

    def sums(self, length: int, starts: NDArray[np.int64] | None = None) -> Hashes:
        """One sum for each run of `length` words, in order; or for those alone that begin at `starts`, if they end in the text."""
        count = max(0, len(self.before) - length)
        if starts is None:
            return (self.before[length:] - self.before[:count]) * self.inverse[:count]
        starts = starts[starts < count]
        return (self.before[starts + length] - self.before[starts]) * self.inverse[starts]


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """One hash for each run of `length` words, in order; empty where there are fewer words."""
    return mix(Runs(words).sums(length))


def shingles(text: str, length: int = 5) -> Hashes:
    """The sorted set of 5-gram hashes of a text, words split on `[^A-Za-z_0-9]` (bigcode)."""
    return np.unique(ngram_hashes(word_hashes(text), length))


def jaccard(left: Hashes, right: Hashes) -> float:
    """Size of the intersection over size of the union of two sorted sets."""
    if not len(left) or not len(right):
        return 0.0
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)
