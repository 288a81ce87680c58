"""The order of rows that are not packed: neighbours in length share a step, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 50  # steps whose rows are sorted together: enough to find neighbours, few enough to stay a random draw


class ByLength(Sampler[int]):
    """Indices in a random order in which each step's rows are of about one length.

    As transformers' `LengthGroupedSampler`, with two differences: the steps of a pool are shuffled, so that long and short
    ones alternate, and the order is drawn from seed and epoch alone, so that a resumed run goes on with the order that it
    had.

    Args:
        lengths: tokens of each row.
        step: rows of one optimizer step, on all devices together.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], step: int, seed: int) -> None:
        self.lengths, self.step, self.seed = lengths, max(step, 1), seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Accelerate calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        drawn = torch.randperm(len(self.lengths), generator=draw).tolist()
        for start in range(0, len(drawn), POOL * self.step):
            pool = sorted(drawn[start : start + POOL * self.step], key=lambda row: self.lengths[row])
            steps = [pool[at : at + self.step] for at in range(0, len(pool), self.step)]
            # A step that is not full ends the epoch, or rows of two lengths would meet in all that follow.
            last = [steps.pop()] if len(steps[-1]) < self.step else []
            for at in torch.randperm(len(steps), generator=draw).tolist():
                yield from steps[at]
            for rows in last:
                yield from rows
