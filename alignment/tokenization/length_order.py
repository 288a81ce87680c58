"""Order of rows that are not packed: rows of similar length share an optimizer step, so that batches have little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50
"""Steps whose rows are sorted together: enough to find rows of similar length, few enough to stay a random order."""


class LengthSampler(Sampler[int]):
    """Row indices in a random order in which the rows of each optimizer step have about the same length.

    Like transformers' `LengthGroupedSampler`, with two differences: the steps of each pool (`POOL` steps that were sorted together) are
    shuffled, so that long and short steps are mixed, and the order depends only on seed and epoch, so that a resumed run continues in the same order.

    Args:
        lengths: tokens of each row.
        step: rows of one optimizer step, on all devices together.
        seed: seed of the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self.lengths, self.step, self.seed = lengths, max(step, 1), seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next order is drawn for; Accelerate calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=draw).tolist()
        for start in range(0, len(order), POOL * self.step):
            pool = sorted(order[start : start + POOL * self.step], key=lambda row: self.lengths[row])
            steps = [pool[at : at + self.step] for at in range(0, len(pool), self.step)]
            # An incomplete step goes to the end of the epoch: in its place, all later steps would mix two lengths.
            last = [steps.pop()] if len(steps[-1]) < self.step else []
            for number in torch.randperm(len(steps), generator=draw).tolist():
                yield from steps[number]
            for rows in last:
                yield from rows
