"""TRL's DPOTrainer for pairs that are already tokenized, with loss masks that exclude the user's turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference


@dataclass
class MaskedPairCollator(DataCollatorForPreference):
    """TRL's preference collator, which takes the completion mask from the columns `chosen_mask` and `rejected_mask`."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows of `alignment.tokenization.pair_tokens.PairSample` as `DataCollatorForPreference` does."""
        batch: dict[str, Any] = super().torch_call(examples)
        masks = [
            [0] * len(row["prompt_ids"]) + row[f"{side}_mask"] for side in ("chosen", "rejected") for row in examples
        ]
        for target, mask in zip(batch["completion_mask"], masks, strict=True):
            part = mask[-(self.max_length or 0) :] if self.truncation_mode == "keep_end" else mask[: self.max_length]
            target[: len(part)] = torch.tensor(part)
        return batch


class PairTrainer(DPOTrainer):
    """DPOTrainer for rows that are already token ids and masks.

    Args:
        settings: the arguments of DPOTrainer.
    """

    def __init__(self, **settings: Any) -> None:
        args, tokenizer = settings["args"], settings["processing_class"]
        collator = MaskedPairCollator(
            pad_token_id=tokenizer.convert_tokens_to_ids(args.pad_token or tokenizer.pad_token),
            max_length=args.max_length,
            truncation_mode=args.truncation_mode,
            pad_to_multiple_of=args.pad_to_multiple_of,
        )
        super().__init__(**settings, data_collator=collator)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        trainer: Any = self  # TRL's annotation of the attribute is None
        columns = trainer._signature_columns
        columns += [name for name in ("chosen_mask", "rejected_mask") if name not in columns]
