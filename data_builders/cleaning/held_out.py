"""Check whether a text contains held-out code (function bodies), exactly or nearly.

Bodies are compared by their words, without comment lines. A text contains a body if at least 70% of the body's word
5-grams occur in the text within a window of one and a half times the length of the body. White space, punctuation and
line breaks are ignored, so reformatted code is found. Code in which every name was changed is not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from data_builders.cleaning.shingles import Hashes, ngram_hashes, word_hashes

HELD_OUT_COLUMN = "held_out"
"""Column of benchmark rows with code that no training row may contain.

If a benchmark row has this column, training rows are compared with this column only.
"""
NGRAM = 5
THRESHOLD = 0.7
"""Minimum share of a body's distinct 5-grams that a text must contain."""
SPREAD = 1.5
"""Length of the window that must contain the 5-grams, as a multiple of the number of words of the body."""
MIN_WORDS = 12
"""Minimum number of words of a held-out body. Shorter bodies occur by chance in many texts."""
_FILTER_BITS = 20


def code_words(text: str) -> Hashes:
    """Return hashes of the words of a text, without comment lines."""
    lines = (line for line in text.split("\n") if not line.lstrip().startswith(("#", "//")))
    return word_hashes("\n".join(lines))


class Bodies:
    """Index of held-out function bodies by word 5-grams. Picklable.

    Args:
        bodies: source code of the bodies.
        threshold: share of a body's distinct 5-grams that a text must contain.
    """

    def __init__(self, bodies: Iterable[str] = (), threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.sizes: list[tuple[int, int]] = []
        """Number of words and of distinct 5-grams of each body."""
        self._owners: dict[int, list[int]] = defaultdict(list)
        self._filter: NDArray[np.bool_] = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
        for body in bodies:
            self.add(body)

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, body: str) -> bool:
        """Add a body to the index. Return False, and add nothing, if the body has fewer than `MIN_WORDS` words."""
        words = code_words(body)
        if len(words) < MIN_WORDS:
            return False
        grams = np.unique(ngram_hashes(words, NGRAM))
        for gram in grams.tolist():
            self._owners[gram].append(len(self.sizes))
        self._filter[grams >> np.uint64(64 - _FILTER_BITS)] = True
        self.sizes.append((len(words), len(grams)))
        return True

    def check(self, text: str) -> int | None:
        """Return the index of the first body that a text contains, exactly or nearly, or None if there is no match."""
        return next(self._contained(text), None)

    def matches(self, texts: Iterable[str]) -> set[int]:
        """Return the indices of all bodies that at least one of the texts contains, exactly or nearly."""
        return {number for text in texts for number in self._contained(text)}

    def _contained(self, text: str) -> Iterator[int]:
        if not self.sizes:
            return
        grams = ngram_hashes(code_words(text), NGRAM)
        places = np.flatnonzero(self._filter[grams >> np.uint64(64 - _FILTER_BITS)])
        hits: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for place, gram in zip(places.tolist(), grams[places].tolist(), strict=True):
            for owner in self._owners.get(gram, ()):
                hits[owner].append((place, gram))
        for owner in sorted(hits):
            if self._close_together(hits[owner], *self.sizes[owner]):
                yield owner

    def _close_together(self, hits: list[tuple[int, int]], words: int, distinct: int) -> bool:
        """Whether enough distinct 5-grams of a body lie close together in a text.

        Args:
            hits: position in the text and hash of each 5-gram that the text shares with the body, in order of position.
            words: number of words of the body.
            distinct: number of distinct 5-grams of the body.
        """
        needed = max(1, int(np.ceil(self.threshold * distinct)))
        if len(hits) < needed:
            return False
        inside: Counter[int] = Counter()
        first = 0
        for place, gram in hits:
            inside[gram] += 1
            while place - hits[first][0] > SPREAD * words:
                leaving = hits[first][1]
                inside[leaving] -= 1
                if not inside[leaving]:
                    del inside[leaving]
                first += 1
            if len(inside) >= needed:
                return True
        return False
