"""Packed rows for attention kernels that take no variable lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from alignment.models.formats import IGNORED


@dataclass
class PackedRows:
    """Batches of packed rows, each kept a row: `input_ids`, `labels`, `position_ids` of shape [batch, length].

    Position ids restart at every sample, padding counting as one, and there is no attention mask: from them
    `sample_attention` cuts the rows, or transformers builds the block-diagonal causal mask, so that no sample sees
    another. TRL's own collator flattens the batch into one row, which suits flash attention; sdpa would build a mask
    quadratic in the whole batch.
    """

    pad_token_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
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
            labels[positions == 0] = IGNORED  # nothing before a sample predicts its first token
            batch["input_ids"][row, :size] = torch.tensor(example["input_ids"])
            batch["labels"][row, :size] = labels
            batch["position_ids"][row] = torch.cat([positions, torch.arange(length - size)])
        return batch


def takes_variable_lengths(model: Any) -> bool:
    """Whether the model's attention kernel reads sample boundaries from a flattened batch."""
    return "flash" in str(getattr(model.config, "_attn_implementation", ""))
