"""Packing that fills its rows: of two ways to do it, the one that needs fewer.

Best-fit decreasing is right where short samples can fill what long ones leave. Where none is short it leaves what is less than
the shortest: with lengths of 65 to 137 tokens in rows of 512 about 4%. There a row is a subset of a few dozen samples, drawn
at random, that adds up to it (subset sum, Bellman 1957; the sums that can be reached are the bits of one integer).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

DRAWN = 40  # samples of which a row's subset is sought: 2**40 sums, far more than a row has lengths
TRIES = 4  # draws for one row, while its sum is not exact
PACKED = "packed.arrow"
_ROWS = 256  # packed rows that are in memory at a time


def fill(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Rows of samples: each a list of indices into `lengths`, in a random order, as the rows are.

    Args:
        lengths: tokens of each sample, none above `size`.
        size: tokens that a row holds.
        seed: of the draws; the same rows come of the same lengths and seed.

    Raises:
        ValueError: a sample is longer than a row.
    """
    if lengths and max(lengths) > size:
        raise ValueError(f"a sample of {max(lengths)} tokens does not fit into a row of {size}")
    draw = random.Random(seed)
    rows = best_fit(lengths, size)
    if (len(rows) - 1) * size >= sum(lengths):  # fewer would do, if they could be filled
        rows = min(rows, exact_sums(lengths, size, draw), key=len)
    for row in rows:
        draw.shuffle(row)
    draw.shuffle(rows)
    return rows


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Best-fit decreasing: each sample, the longest first, into the fullest row that has room for it."""
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(size + 1)]
    rooms = 0  # bit n: some row has room for n tokens
    for sample in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[sample]
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = size, len(rows)
            rows.append([])
        rows[row].append(sample)
        if room > length:
            by_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return rows


def exact_sums(lengths: Sequence[int], size: int, draw: random.Random) -> list[list[int]]:
    """Each row one sample and, of samples drawn at random, a subset that comes nearest to what is missing.

    Samples longer than half a row come first: no two of them share one, and short ones must be left to go with them.
    """
    left = _Left(lengths, draw)
    rows = []
    while left.count:
        longest = left.longest()
        row = left.take([longest if left.sorted[longest] > size / 2 else left.any()])
        missing = size - lengths[row[0]]
        places = left.drawn(missing)
        while len(places) == DRAWN and (total := sum(left.sorted[at] for at in places)) < missing:
            row += left.take(places)  # short samples: a subset is for the end of the row
            missing -= total
            places = left.drawn(missing)
        best: list[int] = []
        most = 0
        for _ in range(TRIES):
            chosen, total = nearest([left.sorted[at] for at in places], missing)
            if total > most:
                best, most = [places[at] for at in chosen], total
            if most == missing or len(places) < DRAWN:
                break
            places = left.drawn(missing)
        rows.append(row + left.take(best))
    return rows


class _Left:
    """Samples that are in no row yet, sorted by length."""

    def __init__(self, lengths: Sequence[int], draw: random.Random) -> None:
        self.order = list(range(len(lengths)))
        draw.shuffle(self.order)
        self.order.sort(key=lengths.__getitem__)
        self.draw, self.count = draw, len(self.order)
        self.sorted = [lengths[sample] for sample in self.order]
        self.taken = bytearray(self.count)
        self.end = self.count - 1

    def longest(self) -> int:
        """The place of the longest sample."""
        while self.taken[self.end]:
            self.end -= 1
        return self.end

    def any(self) -> int:
        """The place of a random sample."""
        while self.taken[at := self.draw.randrange(len(self.order))]:
            pass
        return at

    def take(self, places: Sequence[int]) -> list[int]:
        """The samples at these places, which are left no longer; places that were drawn before it are void after it."""
        samples = [self.order[at] for at in places]
        for at in places:
            self.taken[at] = 1
        self.count -= len(places)
        if self.count < len(self.order) // 2:  # draws would meet more that is taken than is left
            kept = [at for at in range(len(self.order)) if not self.taken[at]]
            self.order = [self.order[at] for at in kept]
            self.sorted = [self.sorted[at] for at in kept]
            self.taken = bytearray(len(kept))
            self.end = len(kept) - 1
        return samples

    def drawn(self, longest: int) -> list[int]:
        """Places of up to `DRAWN` samples of at most `longest` tokens, in a random order."""
        end = bisect_right(self.sorted, longest)
        if end <= 4 * DRAWN:
            places = [at for at in range(end) if not self.taken[at]]
            return self.draw.sample(places, min(DRAWN, len(places)))
        found = dict.fromkeys(self.draw.randrange(end) for _ in range(3 * DRAWN))
        return [at for at in found if not self.taken[at]][:DRAWN]


def nearest(lengths: Sequence[int], wanted: int) -> tuple[list[int], int]:
    """The subset whose sum comes nearest to `wanted` from below: its indices and its sum."""
    below = (1 << (wanted + 1)) - 1
    reached = [1]  # bit n: the first samples have a subset of sum n
    for length in lengths:
        reached.append((reached[-1] | reached[-1] << length) & below)
        if reached[-1] >> wanted:
            break
    total = at = reached[-1].bit_length() - 1
    chosen = []
    for index in range(len(reached) - 2, -1, -1):
        if not reached[index] >> at & 1:
            chosen.append(index)
            at -= lengths[index]
    return chosen, total


def pack(data: Any, size: int, seed: int, folder: Path) -> Any:
    """The samples of a dataset in rows that `fill` found, written to `folder` row by row.

    Args:
        data: a dataset with `input_ids`, `labels` and `length`; rows are read from where it lies on the disk.
        size: tokens that a row holds.
        seed: of the rows and their order.
        folder: gets `packed.arrow`, which the returned dataset reads.

    Returns:
        A dataset with `input_ids`, `labels`, and `seq_lengths`, the lengths of a row's samples.
    """
    import pyarrow as pa
    from datasets import Dataset

    lengths: list[int] = data["length"][:]
    rows = fill(lengths, size, seed)
    data = data.with_format("arrow")
    columns = ("input_ids", "labels")
    schema = pa.schema([pa.field(name, pa.list_(pa.int32())) for name in (*columns, "seq_lengths")])
    path = folder / PACKED
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(rows), _ROWS):
            batch = rows[start : start + _ROWS]
            table = data[[sample for row in batch for sample in row]]
            sizes = [[lengths[sample] for sample in row] for row in batch]
            ends = list(accumulate(map(sum, sizes), initial=0))
            arrays = [_joined(table[name], ends) for name in columns] + [pa.array(sizes, pa.list_(pa.int32()))]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return Dataset.from_file(str(path))


def _joined(column: Any, ends: list[int]) -> Any:
    """The lists of an Arrow column one after the other, as longer lists that end at these places."""
    import pyarrow as pa

    values = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
