"""A text prepared for fast searches for many words and formats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
_RUN_TABLE = np.zeros(256, dtype=np.int8)
_RUN_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")] = 1
_TELLING_TABLE = np.zeros(256, dtype=np.int8)
_TELLING_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] = 1
_DIGIT_TABLE = np.zeros(256, dtype=np.bool_)
_DIGIT_TABLE[list(b"0123456789")] = True
_HASHES = 1 << 16
"""Number of values of the hash of three letters."""


def _trigram_hashes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Compute a hash of each three neighbouring characters. Capitals count as small letters."""
    lowered = _LOWER[codes].astype(np.uint16)
    return lowered[:-2] * np.uint16(1021) + lowered[1:-1] * np.uint16(33) + lowered[2:]


def _codes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)


class TextIndex:
    """A text with what the searches share: character codes, the lower-case text, and the trigrams that occur.

    All arrays have one element for each character, so offsets in the arrays are offsets in the text.

    Args:
        text: the text to search.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.codes = _codes(text)

    @cached_property
    def lowered(self) -> str:
        """The text in lower case. The length does not change, so offsets stay valid."""
        lowered = self.text.lower()
        if len(lowered) == len(self.text):
            return lowered
        return "".join(char.lower() if char.isascii() else char for char in self.text)

    @cached_property
    def trigrams(self) -> npt.NDArray[np.bool_]:
        """Boolean array, indexed by a trigram's hash: whether a trigram with this hash occurs in the text."""
        occurs = np.zeros(_HASHES, dtype=np.bool_)
        if len(self.codes) >= 3:
            occurs[_trigram_hashes(self.codes)] = True
        return occurs

    @cached_property
    def digits(self) -> npt.NDArray[np.bool_]:
        """Whether each character is an ASCII digit."""
        return _DIGIT_TABLE[self.codes]

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Places where tokens can be: runs of at least 16 characters `[A-Za-z0-9_-]` with a digit or a capital."""
        inside = np.zeros(len(self.codes) + 2, dtype=np.int8)
        inside[1:-1] = _RUN_TABLE[self.codes]
        edges = np.diff(inside)
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        long = ends - starts >= 16
        starts, ends = starts[long], ends[long]
        telling_before = np.concatenate([[0], np.cumsum(_TELLING_TABLE[self.codes], dtype=np.int64)])
        telling = telling_before[ends] > telling_before[starts]
        return list(zip(starts[telling].tolist(), ends[telling].tolist(), strict=True))

    @cached_property
    def digit_spans(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Starts and ends of all runs of digits."""
        inside = np.zeros(len(self.codes) + 2, dtype=np.int8)
        inside[1:-1] = self.digits
        edges = np.diff(inside)
        return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)

    def digit_runs(self, shortest: int) -> list[int]:
        """Return the offsets of all runs of at least `shortest` digits."""
        starts, ends = self.digit_spans
        return [int(start) for start in starts[ends - starts >= shortest]]


class WordSet:
    """A fixed set of words, of which those that can occur in a text are found in one pass over the text.

    Args:
        words: words of at least three characters.
    """

    def __init__(self, words: Sequence[str]) -> None:
        assert all(len(word) >= 3 for word in words), words
        self.words = list(words)
        hashes = [_trigram_hashes(_codes(word)) for word in words]
        self._hashes = np.concatenate(hashes)
        self._starts = np.cumsum([0] + [len(part) for part in hashes[:-1]])

    def candidates(self, index: TextIndex) -> list[int]:
        """Return the numbers of the words whose trigrams all occur in a text. Other words do not occur in the text."""
        occurs = np.logical_and.reduceat(index.trigrams[self._hashes], self._starts)
        return [int(number) for number in np.flatnonzero(occurs)]
