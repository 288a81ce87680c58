"""Exact and near-duplicates: MinHash over 5-grams of words, verified by the true Jaccard similarity.

bigcode's parameters: 5-grams of words split on `[^A-Za-z_0-9]`, 256 permutations, threshold 0.7. The 256 values make
32 bands of 8: a pair of similarity 0.7 becomes a candidate with probability 0.85, one of 0.8 with 0.996. A candidate is
only a question: it is a duplicate if the Jaccard similarity of the two sets of 5-grams is at least the threshold.

Texts are judged in order, and the first of a group of duplicates is the one that stays. A text is compared with texts
that stay, never with removed ones, so likeness is not chained from one file to the next.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import rensa
from numpy.typing import NDArray

from data_builders.shingles import Hashes, jaccard, mix, shingles

PERMUTATIONS = 256
THRESHOLD = 0.7
NGRAM = 5
BANDS = 32
SEED = 42


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a text to find its duplicates: 16 bytes for exact ones, 32 band keys for near ones."""

    exact: bytes
    bands: bytes = field(repr=False)


def fingerprints(texts: Sequence[str], groups: Sequence[str] | None = None) -> list[Fingerprint]:
    """Fingerprints of a batch of texts. A text of fewer than five words has no bands: only exact duplicates count.

    Texts of different `groups` (at most 16 characters each) are never duplicates of one another.
    """
    sets = [shingles(text, NGRAM) for text in texts]
    names = [group.encode() for group in groups] if groups is not None else [b""] * len(texts)
    sets = [
        np.sort(grams ^ np.uint64(zlib.crc32(name))) if name else grams for grams, name in zip(sets, names, strict=True)
    ]
    exact = [
        hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16, person=name).digest()
        for text, name in zip(texts, names, strict=True)
    ]
    bands = band_keys(sets)
    return [
        Fingerprint(key, row.tobytes() if len(grams) else b"")
        for key, row, grams in zip(exact, bands, sets, strict=True)
    ]


def band_keys(sets: Sequence[Hashes]) -> NDArray[np.uint64]:
    """(texts, 32) keys: two texts are candidates if they share a key in the same band."""
    if not sets:
        return np.empty((0, BANDS), dtype=np.uint64)
    offsets = np.cumsum([0, *(len(grams) for grams in sets)]).astype(np.uint64)
    flat = np.concatenate([*sets, np.empty(0, dtype=np.uint64)])
    digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, PERMUTATIONS, SEED).to_rows()
    matrix = np.array(digests, dtype=np.uint64).reshape(len(sets), BANDS, PERMUTATIONS // BANDS)
    keys = np.zeros((len(sets), BANDS), dtype=np.uint64)
    for column in range(PERMUTATIONS // BANDS):
        keys = mix(keys + matrix[:, :, column] + np.uint64(column + 1))
    return keys


@dataclass(frozen=True)
class Duplicate:
    """`index` is removed because `of` stays; `similarity` is the true Jaccard, 1.0 for equal texts."""

    index: int
    of: int
    similarity: float
    exact: bool


def find_duplicates(
    prints: Sequence[Fingerprint], text_of: Callable[[int], str], threshold: float = THRESHOLD, near: bool = True
) -> list[Duplicate]:
    """Which texts to remove, in order. `text_of` is asked only for candidates.

    Memory: 272 bytes a text, and a dictionary over the band keys that occur more than once.
    """
    removed: dict[int, Duplicate] = {}
    first: dict[bytes, int] = {}
    for index, fingerprint in enumerate(prints):
        original = first.setdefault(fingerprint.exact, index)
        if original != index:
            removed[index] = Duplicate(index, original, 1.0, True)
    if near:
        _find_near([(index, item.bands) for index, item in enumerate(prints) if item.bands and index not in removed],
                   text_of, threshold, removed)  # fmt: skip
    return [removed[index] for index in sorted(removed)]


def _find_near(
    banded: list[tuple[int, bytes]], text_of: Callable[[int], str], threshold: float, removed: dict[int, Duplicate]
) -> None:
    if len(banded) < 2:
        return
    keys = np.frombuffer(b"".join(bands for _, bands in banded), dtype=np.uint64).reshape(len(banded), BANDS)
    shared = np.zeros(keys.shape, dtype=np.bool_)
    for band in range(BANDS):  # keys that occur once can't make a pair: leave them out before any dictionary
        order = np.argsort(keys[:, band], kind="stable")
        column = keys[order, band]
        equal = column[1:] == column[:-1]
        shared[order[1:][equal], band] = True
        shared[order[:-1][equal], band] = True

    @lru_cache(maxsize=1024)
    def grams(index: int) -> Hashes:
        return shingles(text_of(index), NGRAM)

    buckets: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(shared.any(axis=1)):
        index = banded[row][0]
        places = [(int(band), int(keys[row, band])) for band in np.flatnonzero(shared[row])]
        candidates = sorted({other for place in places for other in buckets.get(place, ())})
        for other in candidates:
            similarity = jaccard(grams(index), grams(other))
            if similarity >= threshold:
                removed[index] = Duplicate(index, other, round(similarity, 4), False)
                break
        else:
            for place in places:
                buckets.setdefault(place, []).append(index)
