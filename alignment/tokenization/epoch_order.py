"""Order of rows if every epoch has rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from alignment.tokenization.length_order import LengthSampler


class EpochSampler(Sampler[int]):
    """Row indices of the current epoch's own rows, in a random order.

    The rows of all epochs stand one epoch after the other. The order depends only on seed and epoch, so that a resumed run
    continues in the same order. After the last epoch with rows of its own, the first one's rows come again.

    Args:
        rows: all rows together.
        epochs: epochs with rows of their own.
        seed: seed of the order.
        lengths: tokens of each row, for the order of `LengthSampler`; None for packed rows.
        step: rows of one optimizer step, on all devices together.
    """

    def __init__(self, rows: int, epochs: int, seed: int, lengths: Sequence[int] | None = None, step: int = 1) -> None:
        self.size, self.epochs, self.seed = rows // epochs, epochs, seed
        self.lengths, self.step = lengths, step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next order is drawn for; Accelerate calls this before each epoch."""
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
