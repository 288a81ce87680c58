"""Collate packed rows into batches for attention kernels that can't take the lengths of samples.

Shapes: B = rows of the batch, T = tokens of the longest row in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from alignment.models.formats import IGNORED


@dataclass
class PackedRowCollator:
    """Collate packed rows without merging them: `input_ids`, `labels` and `position_ids`, each of shape [B, T].

    Position ids restart at 0 with every sample, and the padding at the end of a row counts as one more sample. The
    batch has no attention mask. Instead, `sample_attention` splits the rows where positions restart, or transformers
    builds the block-diagonal causal mask from the positions, so that no sample attends to another. TRL's collator
    flattens the batch into a single row. That suits flash attention, but sdpa would need a mask of shape [B * T, B *
    T].
    """

    pad_token_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows with `input_ids`, `labels` and, if packed, `seq_lengths` (the lengths of a row's samples)."""
        length = max(len(example["input_ids"]) for example in examples)
        shape = (len(examples), length)
        batch = {
            "input_ids": torch.full(shape, self.pad_token_id),
            "labels": torch.full(shape, IGNORED),
            "position_ids": torch.empty(shape, dtype=torch.long),
        }
        for row, example in enumerate(examples):
            size = len(example["input_ids"])
            positions = torch.cat([torch.arange(part) for part in example.get("seq_lengths") or [size]])
            labels = torch.tensor(example["labels"])
            labels[positions == 0] = IGNORED  # the first token of a sample has no token before it to predict it
            batch["input_ids"][row, :size] = torch.tensor(example["input_ids"])
            batch["labels"][row, :size] = labels
            batch["position_ids"][row] = torch.cat([positions, torch.arange(length - size)])
        return batch


def takes_variable_lengths(model: Any) -> bool:
    """Whether the model's attention kernel can take the lengths of samples, as flash attention can."""
    return "flash" in str(getattr(model.config, "_attn_implementation", ""))
