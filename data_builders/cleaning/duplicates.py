"""Exact and near-duplicates: MinHash over 5-grams of words, verified by the true Jaccard similarity.

bigcode's parameters: 5-grams of words split on `[^A-Za-z_0-9]`, 256 permutations, threshold 0.7. The 256 values make
32 bands of 8: a pair of similarity 0.7 becomes a candidate with probability 0.85, one of 0.8 with 0.996. A candidate is
only a question: it is a duplicate if the Jaccard similarity of the two sets of 5-grams is at least the threshold.

Texts are judged in order, and the first of a group of duplicates is the one that stays. A text is compared with texts
that stay, never with removed ones, so likeness is not chained from one file to the next.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import rensa
from numpy.typing import NDArray

from data_builders.cleaning.shingles import Hashes, jaccard, mix, shingles
from data_builders.storage.staging import BANDS, FingerprintStore

PERMUTATIONS = 256
THRESHOLD = 0.7
NGRAM = 5
SEED = 42


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Duplicate:
    """`index` is removed because `of` stays; `similarity` is the true Jaccard, 1.0 for equal texts."""

    index: int
    of: int
    similarity: float
    exact: bool


def find_duplicates(
    prints: FingerprintStore | Iterable[Fingerprint], text_of: Callable[[int], str], threshold: float = THRESHOLD
) -> list[Duplicate]:
    """Which texts to remove, in order. `text_of` is asked only for candidates.

    Memory: one band after another is looked at; measured, 240 bytes a text where a tenth of the texts are copies.
    """
    if not isinstance(prints, FingerprintStore):
        with FingerprintStore() as store:
            store.append(prints)
            return find_duplicates(store, text_of, threshold)
    removed: dict[int, Duplicate] = {}
    keys = prints.exact()
    if len(keys):
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: of equal texts the first comes first
        starts = np.concatenate([[True], (keys[order[1:]] != keys[order[:-1]]).any(axis=1)])
        firsts = order[starts][np.cumsum(starts) - 1]
        for index, original in zip(order[~starts].tolist(), firsts[~starts].tolist(), strict=True):
            removed[index] = Duplicate(index, original, 1.0, True)
    if len(prints.banded()):
        _find_near(prints, text_of, threshold, removed)
    return [removed[index] for index in sorted(removed)]


def _find_near(
    prints: FingerprintStore, text_of: Callable[[int], str], threshold: float, removed: dict[int, Duplicate]
) -> None:
    rows, groups, starts, members = _groups(prints, removed)
    staying = np.zeros(len(starts), dtype=np.int64)  # members of each group that stay so far

    grams = _Recent(lambda index: shingles(text_of(index), NGRAM))
    edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges.tolist()):
        index, own = int(rows[first]), groups[first:last]
        known = [members[starts[group] : starts[group] + staying[group]] for group in own]
        for other in np.unique(np.concatenate(known)).tolist():
            shorter, longer = sorted([len(grams(index)), len(grams(other))])
            if longer and shorter / longer < threshold:
                continue  # even if all of the shorter one stands in the longer one
            similarity = jaccard(grams(index), grams(other))
            if similarity >= threshold:
                removed[index] = Duplicate(index, other, round(similarity, 4), False)
                break
        else:
            members[starts[own] + staying[own]] = index
            staying[own] += 1


class _Recent:
    """What was computed last, up to so many hashes in all: a file of a megabyte has a hundred times a common one's."""

    def __init__(self, compute: Callable[[int], Hashes], most: int = 8_000_000) -> None:
        self._compute, self._most = compute, most
        self._known: dict[int, Hashes] = {}
        self._held = 0

    def __call__(self, index: int) -> Hashes:
        found = self._known.pop(index, None)
        if found is None:
            found = self._compute(index)
            self._held += len(found)
        self._known[index] = found  # the last one used is at the end
        while self._held > self._most and len(self._known) > 1:
            self._held -= len(self._known.pop(next(iter(self._known))))
        return found


def _groups(
    prints: FingerprintStore, removed: dict[int, Duplicate]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Texts that share a key in some band: (text, group) pairs sorted by text, each group's start, and room for members."""
    indices = prints.banded()
    kept = np.ones(len(indices), dtype=np.bool_)
    kept[np.isin(indices, np.fromiter(removed, dtype=np.int64, count=len(removed)))] = False
    places = np.flatnonzero(kept)
    pairs, sizes = [], []
    count = 0
    for band in range(BANDS):
        column = prints.band(band)[places]
        order = np.argsort(column, kind="stable")
        equal = np.zeros(len(order) + 1, dtype=np.bool_)  # whether a text has the key of the one before it
        equal[1:-1] = column[order[1:]] == column[order[:-1]]
        shared = equal[:-1] | equal[1:]
        heads = equal[1:] & ~equal[:-1]  # the first text of each group
        numbers = np.cumsum(heads)[shared] - 1
        # One number a pair, the text in its upper half: sorted in place, 64 million pairs cost a gigabyte and not two.
        pairs.append((indices[places[order[shared]]] << 32) | (numbers + count))
        sizes.append(np.bincount(numbers, minlength=int(heads.sum())))
        count += int(heads.sum())
    joined = np.concatenate(pairs)
    pairs.clear()
    joined.sort()  # within a text, bands in order
    rows, groups = (joined >> 32).astype(np.int32), (joined & 0xFFFFFFFF).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])[:-1].astype(np.int64)
    return rows, groups, starts, np.zeros(len(rows), dtype=np.int32)
