"""Order of unpacked rows: rows of similar length share an optimizer step, so that batches have little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50
"""Number of steps whose rows are sorted together.

Large enough to find rows of similar length, and small enough to keep the order random.
"""


class LengthSampler(Sampler[int]):
    """Sample row indices in a random order in which the rows of each optimizer step have about the same length.

    The sampler works like transformers' `LengthGroupedSampler`, with two differences. Rows are sorted by length within
    pools of `POOL` steps, and the steps of a pool are then shuffled, so that steps with long and short rows are mixed.
    The order depends only on seed and epoch, so that a resumed run continues in the same order.

    Args:
        lengths: number of tokens of each row.
        step: number of rows of one optimizer step, over all devices.
        seed: seed of the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self.lengths, self.step, self.seed = lengths, max(step, 1), seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order `__iter__` yields. Accelerate calls this method before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=draw).tolist()
        for start in range(0, len(order), POOL * self.step):
            pool = sorted(order[start : start + POOL * self.step], key=lambda row: self.lengths[row])
            steps = [pool[at : at + self.step] for at in range(0, len(pool), self.step)]
            # An incomplete step goes to the end of the epoch. Elsewhere it would shift the boundaries of all later
            # steps, and each of them would mix rows of two lengths.
            last = [steps.pop()] if len(steps[-1]) < self.step else []
            for number in torch.randperm(len(steps), generator=draw).tolist():
                yield from steps[number]
            for rows in last:
                yield from rows
