"""Order of rows for a dataset in which every epoch has different rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from alignment.tokenization.length_order import LengthSampler


class EpochSampler(Sampler[int]):
    """Sample the indices of the current epoch's rows, in a random order.

    The dataset holds the rows of the first epoch, then the rows of the second epoch, and so on. If training has more
    epochs, the rows of the first epoch follow again. The order depends only on seed and epoch, so that a resumed run
    continues in the same order.

    Args:
        rows: number of rows of all epochs together.
        epochs: number of epochs in the dataset.
        seed: seed of the order.
        lengths: number of tokens in each row, for the order of `LengthSampler`. None for packed rows.
        step: number of rows of one optimizer step, on all devices together.
    """

    def __init__(self, rows: int, epochs: int, seed: int, lengths: Sequence[int] | None = None, step: int = 1) -> None:
        self.size, self.epochs, self.seed = rows // epochs, epochs, seed
        self.lengths, self.step = lengths, step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order `__iter__` yields. Accelerate calls this method before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        first = self.epoch % self.epochs * self.size
        if self.lengths is None:
            draw = torch.Generator().manual_seed(self.seed + self.epoch)
            order: Iterator[int] = iter(torch.randperm(self.size, generator=draw).tolist())
        else:
            by_length = LengthSampler(self.lengths[first : first + self.size], self.step, self.seed)
            by_length.set_epoch(self.epoch)
            order = iter(by_length)
        return (first + row for row in order)
