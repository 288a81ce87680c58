"""Hash all words and word n-grams of a text at once with numpy.

The hashes are used for near-duplicates, decontamination and classifiers. They are the same in every process and on
every machine, but not cryptographic: collisions can be constructed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
"""Array with one 64-bit hash for each word or n-gram. Shape: (n,)."""


def _tables(extra: bytes) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_" + extra:
        table[byte] = byte
    return table


_CODE_TABLE = _tables(b"")
"""Maps each byte of a word to itself, and all other bytes to 0. As in bigcode's deduplication, words are
[A-Za-z_0-9]."""
_TEXT_TABLE = _tables(bytes(range(128, 256)))
for _byte in range(65, 91):
    _TEXT_TABLE[_byte] = _byte + 32
"""Maps each byte of a word in any script to itself, and all other bytes to 0. ASCII letters become lower case."""


class _Powers:
    """Cached powers of an odd number and of its inverse, modulo 2**64."""

    def __init__(self, base: int) -> None:
        self.factors = (base, pow(base, -1, 1 << 64))
        self.cached = [np.ones(1, dtype=np.uint64)] * 2

    def up_to(self, count: int) -> tuple[Hashes, Hashes]:
        """Return the first `count` powers of the number and of its inverse. Missing powers are computed."""
        if len(self.cached[0]) < count:
            for place, factor in enumerate(self.factors):
                factors = np.full(max(count, 65_536), factor, dtype=np.uint64)
                factors[0] = 1
                self.cached[place] = np.multiply.accumulate(factors)
        return self.cached[0][:count], self.cached[1][:count]


_POWERS = _Powers(0x9E3779B97F4A7C15 | 1)
"""Factors by which the bytes of a word are multiplied. The hash of the word is the sum of the products. The base of the
powers is 2**64 / the golden ratio."""
_RUN_POWERS = _Powers(0xD6E8FEB86659FD93)
"""Factors by which the hashes of words are multiplied. The hash of an n-gram is the sum of the products."""
_BLOCK = 1 << 20
"""Number of bytes to hash at once."""


def mix(values: Hashes) -> Hashes:
    """Apply the finalizer of splitmix64: every bit of the result depends on all bits of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def word_spans(text: bytes, *, lower: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Find the words of a text.

    Args:
        text: UTF-8 bytes.
        lower: whether to ignore ASCII case and count all non-ASCII bytes as letters.

    Returns:
        starts: byte offset of each word. Shape: (words,).
        ends: byte offset after each word. Shape: (words,).
        letters: bytes of the text, with 0 for each byte outside of a word. Shape: (bytes,).
    """
    table = _TEXT_TABLE if lower else _CODE_TABLE
    letters = table[np.frombuffer(text, dtype=np.uint8)]
    inside = np.zeros(len(letters) + 2, dtype=np.int8)
    inside[1:-1] = letters != 0
    edges = np.diff(inside)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), letters


def word_hashes(text: str, *, lower: bool = False) -> Hashes:
    """Return the hash of each word of a text. Shape: (words,).

    Args:
        text: the text.
        lower: whether to ignore ASCII case and count all non-ASCII characters as letters.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= _BLOCK:
        return _hash_words(raw, lower)
    blocks, start = [], 0
    while start < len(raw):
        end = start + _BLOCK
        if end < len(raw):  # to limit memory, cut the text at a line break or blank
            newline = max(raw.rfind(b"\n", start, end), raw.rfind(b" ", start, end))
            end = newline + 1 if newline > start else end
        blocks.append(_hash_words(raw[start:end], lower))
        start = end
    return np.concatenate(blocks)


def word_hashes_of(texts: Sequence[str], *, lower: bool = False) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash each word of many texts. For short texts, this is several times as fast as `word_hashes`.

    Returns:
        hashes: hashes of the words of all texts. Shape: (words,).
        bounds: index of the first word of each text, then the total number of words. Shape: (texts + 1,).
    """
    words: list[Hashes] = []
    bounds = [np.zeros(1, dtype=np.int64)]
    count = 0
    pending: list[bytes] = []

    def append(hashes: Hashes, ends: NDArray[np.int64]) -> None:
        nonlocal count
        words.append(hashes)
        bounds.append(ends + count)
        count += len(hashes)

    def flush() -> None:
        raw = b"\n".join(pending)
        starts, ends, letters = word_spans(raw, lower=lower)
        # The offset of the end of each text. The line break that joins two texts ends a word.
        edges = np.cumsum([len(text) + 1 for text in pending])
        append(_hash_spans(starts, ends, letters), np.searchsorted(starts, edges))
        pending.clear()

    size = 0
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if pending and size + len(raw) > _BLOCK:
            flush()
            size = 0
        if len(raw) > _BLOCK:
            hashes = word_hashes(text, lower=lower)
            append(hashes, np.array([len(hashes)]))
        else:
            pending.append(raw)
            size += len(raw) + 1
    if pending:
        flush()
    return np.concatenate([*words, np.empty(0, dtype=np.uint64)]), np.concatenate(bounds)


def _hash_words(raw: bytes, lower: bool) -> Hashes:
    return _hash_spans(*word_spans(raw, lower=lower))


def _hash_spans(starts: NDArray[np.int64], ends: NDArray[np.int64], letters: NDArray[np.uint8]) -> Hashes:
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    base, inverse = _POWERS.up_to(len(letters) + 1)
    prefix = np.zeros(len(letters) + 1, dtype=np.uint64)
    np.cumsum(letters * base[: len(letters)], out=prefix[1:])
    return mix((prefix[ends] - prefix[starts]) * inverse[starts])


class Runs:
    """Computes sums over word n-grams of any length, as differences of prefix sums modulo 2**64.

    `mix` turns a sum into the hash of the n-gram.

    Args:
        words: hashes of the words of a text. Shape: (words,).
    """

    def __init__(self, words: Hashes) -> None:
        powers, self.inverse = _RUN_POWERS.up_to(len(words) + 1)
        self.before = np.zeros(len(words) + 1, dtype=np.uint64)
        np.cumsum(words * powers[: len(words)], out=self.before[1:])

    def sums(self, length: int, starts: NDArray[np.int64] | None = None) -> Hashes:
        """Compute one sum for each n-gram, in order.

        Args:
            length: number of words of an n-gram.
            starts: indices of the words at which n-grams start. N-grams that would end after the text are left out.
                With None, all n-grams are computed.
        """
        count = max(0, len(self.before) - length)
        if starts is None:
            return (self.before[length:] - self.before[:count]) * self.inverse[:count]
        starts = starts[starts < count]
        return (self.before[starts + length] - self.before[starts]) * self.inverse[starts]


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """Return the hash of each n-gram of `length` words, in order. A text with fewer words has no n-grams."""
    return mix(Runs(words).sums(length))


def shingles(text: str, length: int = 5) -> Hashes:
    """Return the sorted set of n-gram hashes of a text. As in bigcode, words are split on `[^A-Za-z_0-9]`."""
    return np.unique(ngram_hashes(word_hashes(text), length))


def jaccard(left: Hashes, right: Hashes) -> float:
    """Compute the Jaccard similarity of two sorted sets: size of the intersection / size of the union."""
    if not len(left) or not len(right):
        return 0.0
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)
