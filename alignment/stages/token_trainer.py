"""TRL's SFTTrainer for rows that are already tokenized, for pretraining and SFT."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import torch
from transformers.utils import is_triton_available
from trl import SFTTrainer

from alignment.stages import loss, sample_attention
from alignment.tokenization.epoch_order import EpochSampler
from alignment.tokenization.length_order import LengthSampler
from alignment.tokenization.packed_collator import PackedRowCollator, takes_variable_lengths


class TokenTrainer(SFTTrainer):
    """SFTTrainer that chooses row order, collator, attention and loss for the rows and the device.

    Loss, gradients and metrics equal those of SFTTrainer on the same batches, up to rounding.

    Args:
        packed: whether a row may hold several samples. The column `seq_lengths` then holds the lengths of the samples.
        by_length: whether rows are ordered by `LengthSampler`.
        epochs: number of epochs with different rows in the dataset; see `EpochSampler`.
        settings: the arguments of SFTTrainer.
    """

    def __init__(self, *, packed: bool, by_length: bool, epochs: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.by_length, self.epochs = by_length, epochs
        model: Any = self.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if packed and not takes_variable_lengths(base):
            self.data_collator = PackedRowCollator(settings["processing_class"].pad_token_id)
        parallel = self.accelerator.parallelism_config
        shares_rows = parallel is not None and (parallel.sp_enabled or parallel.cp_enabled)
        if not shares_rows:  # sequence and context parallelism replace sdpa with their own attention
            sample_attention.enable(base, compiled=self.args.torch_compile)
        self.head = base.get_output_embeddings()
        self.tiles_loss = not shares_rows and self._can_tile(base)
        if self.tiles_loss:
            loss.add_tiled_forward(base)

    def _can_tile(self, base: Any) -> bool:
        """Whether `tiled_loss` computes the requested loss, and is faster on this device than TRL's loss."""
        device = self.accelerator.device.type
        triton = is_triton_available() and device in ("cuda", "xpu")
        args: Any = self.args
        plain = args.loss_type == "nll" and not args.label_smoothing_factor and self.compute_loss_func is None
        # The number of learned tokens differs from batch to batch: a compiled model would be compiled anew for each
        # number.
        return plain and not triton and not args.torch_compile and loss.supports(base)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute SFTTrainer's loss and log its metrics, with `tiled_loss` if that is faster."""
        if return_outputs or not self.tiles_loss or loss.is_sharded(self.head.weight):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        sums = model(**inputs, use_cache=False, tiled=True)
        self._log_metrics(sums, inputs, "train" if model.training else "eval")
        total = sums.learned if num_items_in_batch is None else num_items_in_batch
        value = sums.loss / torch.as_tensor(total).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            value = value * self.accelerator.num_processes  # the count is over all ranks, and DDP averages over ranks
        return value

    def _log_metrics(self, sums: loss.LossSums, inputs: Any, mode: str) -> None:
        """Log entropy, accuracy and the number of tokens over all ranks, under the names that TRL uses."""
        mask = inputs.get("attention_mask")
        tokens = torch.as_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
        values = torch.stack([value.detach().float() for value in (*sums[1:], tokens.to(sums.learned.device))])
        entropy, correct, learned, seen = self.accelerator.gather_for_metrics(values[None]).sum(0).tolist()
        self._metrics[mode]["entropy"].append(entropy / max(learned, 1))
        self._metrics[mode]["mean_token_accuracy"].append(correct / max(learned, 1))
        if mode == "train":
            self._total_train_tokens += int(seen)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def num_examples(self, dataloader: Any) -> int:
        """Return the number of rows in one epoch, which the trainer logs."""
        return super().num_examples(dataloader) // self.epochs

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.by_length and self.epochs == 1:
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = pc.list_value_length(rows.data.column("input_ids")).to_pylist() if self.by_length else None
        step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if lengths is None or self.epochs > 1:
            return EpochSampler(len(rows), self.epochs, seed, lengths, step)
        return LengthSampler(lengths, step, seed)
