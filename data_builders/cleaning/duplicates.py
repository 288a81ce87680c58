"""Find exact duplicates, and near-duplicates by MinHash over word 5-grams, verified by the Jaccard similarity.

The parameters are those of bigcode: 5-grams of words split on `[^A-Za-z_0-9]`, 256 permutations, threshold 0.7. The 256
values form 32 bands of 8. A pair with similarity s becomes a candidate with probability 1 - (1 - s^8)^32, which is 0.85
for s = 0.7 and 0.997 for s = 0.8. A candidate is a duplicate if the Jaccard similarity of the two sets of 5-grams is at
least the threshold.

Texts are compared in order, and the first text of a group of duplicates is kept. Each text is compared only with kept
texts. Otherwise, a chain of small changes could remove a text that is not similar to any kept text.
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
from data_builders.parsing.file_head import without_license_header
from data_builders.storage.staging import BANDS, FingerprintStore

PERMUTATIONS = 256
THRESHOLD = 0.7
NGRAM = 5
SEED = 42


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Hashes of a text, used to find duplicates of the text."""

    exact: bytes
    """Hash of the whole text, 16 bytes."""
    bands: bytes = field(repr=False)
    """The 32 keys for near-duplicate search (one per LSH band), 8 bytes each. Empty if a text has less than 5 words."""


def fingerprints(texts: Sequence[str], groups: Sequence[str] | None = None) -> list[Fingerprint]:
    """Compute the fingerprints of a batch of texts.

    Args:
        texts: the texts.
        groups: name of the group of each text, at most 16 bytes. Texts of different groups are never duplicates.
    """
    sets = [_shingles(text) for text in texts]
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


def _shingles(text: str) -> Hashes:
    """Return the 5-grams of a text. The license header is left out, because unrelated short files share it."""
    return shingles(without_license_header(text), NGRAM)


def band_keys(sets: Sequence[Hashes]) -> NDArray[np.uint64]:
    """Compute the LSH keys of sets of 5-grams, one per band. Texts with an equal key may be duplicates.

    Shape: (texts, 32).
    """
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
    """A text to remove, because it duplicates a kept text."""

    index: int
    """Index of the text to remove."""
    of: int
    """Index of the kept text that is duplicated."""
    similarity: float
    """Jaccard similarity; 1.0 for equal texts."""
    exact: bool
    """Whether the texts are equal, apart from leading and trailing white space."""


def find_duplicates(
    prints: FingerprintStore | Iterable[Fingerprint], text_of: Callable[[int], str], threshold: float = THRESHOLD
) -> list[Duplicate]:
    """Find the texts to remove.

    Memory: 240 bytes per text, measured on texts of which 10% are copies. One band is loaded at a time.

    Args:
        prints: fingerprints of all texts.
        text_of: function that returns the text with a given index. It is called only for possible near-duplicates.
        threshold: two texts are duplicates if the Jaccard similarity of their 5-grams is at least this number.

    Returns:
        Duplicates in the order of their indices.
    """
    if not isinstance(prints, FingerprintStore):
        with FingerprintStore() as store:
            store.append(prints)
            return find_duplicates(store, text_of, threshold)
    removed: dict[int, Duplicate] = {}
    keys = prints.exact()
    if len(keys):
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # a stable sort: equal texts stay in order
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
    """Add near-duplicates to `removed`, which already holds the exact duplicates."""
    rows, groups, starts, members = _groups(prints, removed)
    kept = np.zeros(len(starts), dtype=np.int64)  # number of kept members of each group so far

    grams = _RecentHashes(lambda index: _shingles(text_of(index)))
    edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges.tolist()):
        index, own_groups = int(rows[first]), groups[first:last]
        candidates = [members[starts[group] : starts[group] + kept[group]] for group in own_groups]
        for other in np.unique(np.concatenate(candidates)).tolist():
            shorter, longer = sorted([len(grams(index)), len(grams(other))])
            if longer and shorter / longer < threshold:
                continue  # the sizes differ too much: the similarity is below the threshold
            similarity = jaccard(grams(index), grams(other))
            if similarity >= threshold:
                removed[index] = Duplicate(index, other, round(similarity, 4), False)
                break
        else:
            members[starts[own_groups] + kept[own_groups]] = index
            kept[own_groups] += 1


class _RecentHashes:
    """A least-recently-used cache of arrays of hashes, limited by the total number of hashes.

    A limit on the number of arrays would not limit memory, because files differ in size by a factor of 100.

    Args:
        compute: the function whose results are cached.
        max_hashes: maximum number of hashes in all cached arrays together.
    """

    def __init__(self, compute: Callable[[int], Hashes], max_hashes: int = 8_000_000) -> None:
        self._compute, self._max_hashes = compute, max_hashes
        self._cached: dict[int, Hashes] = {}
        self._size = 0

    def __call__(self, index: int) -> Hashes:
        hashes = self._cached.pop(index, None)
        if hashes is None:
            hashes = self._compute(index)
            self._size += len(hashes)
        self._cached[index] = hashes  # most recently used at the end
        while self._size > self._max_hashes and len(self._cached) > 1:
            self._size -= len(self._cached.pop(next(iter(self._cached))))
        return hashes


def _groups(
    prints: FingerprintStore, removed: dict[int, Duplicate]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Group the texts that have the same key in a band. A text can be in several groups, one for each band.

    Returns:
        rows: index of the text of each (text, group) pair, sorted. Shape: (pairs,).
        groups: index of the group of each pair. Shape: (pairs,).
        starts: index in `members` of the first entry of each group. Shape: (groups,).
        members: zeros, which the caller replaces by the indices of the kept texts of each group. Shape: (pairs,).
    """
    indices = prints.banded()
    remaining = np.ones(len(indices), dtype=np.bool_)
    remaining[np.isin(indices, np.fromiter(removed, dtype=np.int64, count=len(removed)))] = False
    places = np.flatnonzero(remaining)
    pairs, sizes = [], []
    count = 0
    for band in range(BANDS):
        column = prints.band(band)[places]
        order = np.argsort(column, kind="stable")
        equal = np.zeros(len(order) + 1, dtype=np.bool_)  # whether a text has the same key as the previous text
        equal[1:-1] = column[order[1:]] == column[order[:-1]]
        shared = equal[:-1] | equal[1:]
        heads = equal[1:] & ~equal[:-1]  # the first text of each group
        numbers = np.cumsum(heads)[shared] - 1
        # One 64-bit number per pair, text in the upper half: 64 million pairs are sorted in place in 1 GB instead of 2.
        pairs.append((indices[places[order[shared]]] << 32) | (numbers + count))
        sizes.append(np.bincount(numbers, minlength=int(heads.sum())))
        count += int(heads.sum())
    joined = np.concatenate(pairs)
    pairs.clear()
    joined.sort()  # by text, then by band
    rows, groups = (joined >> 32).astype(np.int32), (joined & 0xFFFFFFFF).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])[:-1].astype(np.int64)
    return rows, groups, starts, np.zeros(len(rows), dtype=np.int32)
