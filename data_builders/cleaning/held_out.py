"""Held-out code by content: does a text hold a body, exactly or nearly?

A body is its words, comments of their own lines left out. A text holds it if at least 70% of the body's runs of five
words stand in the text close together: within one and a half times the body's length. White space, punctuation and line
breaks do not count, so reformatting hides nothing; renaming every name does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from data_builders.cleaning.shingles import Hashes, ngram_hashes, word_hashes

HELD_OUT_COLUMN = "held_out"
"""Column of benchmark rows: code that no training row may hold. Of such a row nothing else counts as contamination."""
NGRAM = 5
THRESHOLD = 0.7
SPREAD = 1.5
MIN_WORDS = 12
"""A shorter body stands everywhere by chance: it can't be held out, and is none of the benchmark's."""
_FILTER_BITS = 20


def code_words(text: str) -> Hashes:
    """Hashes of a text's words, without lines that are comments."""
    lines = (line for line in text.split("\n") if not line.lstrip().startswith(("#", "//")))
    return word_hashes("\n".join(lines))


class Bodies:
    """Bodies by their runs of five words. Picklable."""

    def __init__(self, bodies: Iterable[str] = (), threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.sizes: list[tuple[int, int]] = []
        """Of each body: its words, and its distinct runs."""
        self._owners: dict[int, list[int]] = defaultdict(list)
        self._filter: NDArray[np.bool_] = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
        for body in bodies:
            self.add(body)

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, body: str) -> bool:
        """Take a body in; False for one with too few words."""
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
        """The number of a body that the text holds, exactly or nearly; None for none."""
        return next(self._found(text), None)

    def matches(self, texts: Iterable[str]) -> set[int]:
        """The numbers of all bodies that any of the texts holds."""
        return {number for text in texts for number in self._found(text)}

    def _found(self, text: str) -> Iterator[int]:
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

    def _close_together(self, hits: list[tuple[int, int]], words: int, runs: int) -> bool:
        """Whether enough distinct runs lie within a window; `hits` are (place, run) in order."""
        needed = max(1, int(np.ceil(self.threshold * runs)))
        if len(hits) < needed:
            return False
        inside: Counter[int] = Counter()
        first = 0
        for place, gram in hits:
            inside[gram] += 1
            while place - hits[first][0] > SPREAD * words:
                left = hits[first][1]
                inside[left] -= 1
                if not inside[left]:
                    del inside[left]
                first += 1
            if len(inside) >= needed:
                return True
        return False
