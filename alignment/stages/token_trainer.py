"""TRL's SFTTrainer on rows that the stage has tokenized: for pretraining and SFT."""

from __future__ import annotations

from typing import Any

import torch
from transformers.utils import is_triton_available
from trl import SFTTrainer

from alignment.stages import loss, sample_attention
from alignment.tokenization.length_order import ByLength
from alignment.tokenization.packed_collator import PackedRows, takes_variable_lengths


class TokenTrainer(SFTTrainer):
    """TRL's trainer, with an order, batches, attention and a loss that suit the rows and the machine.

    Args:
        packed: whether rows hold several samples, and say in `seq_lengths` which.
        by_length: whether rows come in the order of `ByLength`.
        settings: of SFTTrainer.
    """

    def __init__(self, *, packed: bool, by_length: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.by_length = by_length
        model: Any = self.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if packed and not takes_variable_lengths(base):
            self.data_collator = PackedRows(settings["processing_class"].pad_token_id)
        parallel = self.accelerator.parallelism_config
        shares_rows = parallel is not None and (parallel.sp_enabled or parallel.cp_enabled)
        if not shares_rows:  # what shares rows among devices puts its own attention in sdpa's place
            sample_attention.use(base, compiled=self.args.torch_compile)
        self.head = base.get_output_embeddings()
        self.tiles_loss = not shares_rows and self._can_tile(base)
        if self.tiles_loss:
            loss.add_to(base)

    def _can_tile(self, base: Any) -> bool:
        """Whether the loss is the plain one, and nothing here makes TRL's the faster."""
        device = self.accelerator.device.type
        triton = is_triton_available() and device in ("cuda", "xpu")
        args: Any = self.args
        plain = args.loss_type == "nll" and not args.label_smoothing_factor and self.compute_loss_func is None
        # Rows that are learned differ in number from batch to batch: compiled, each would be compiled anew.
        return plain and not triton and not args.torch_compile and loss.takes(base)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's, with its metrics; by `tiled_loss` where that is faster."""
        if return_outputs or not self.tiles_loss or loss.is_sharded(self.head.weight):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        found = model(**inputs, use_cache=False, tiled=True)
        mask = inputs.get("attention_mask")
        tokens = torch.as_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
        sums = torch.stack([value.detach().float() for value in (*found[1:], tokens.to(found.learned.device))])
        entropy, correct, learned, seen = self.accelerator.gather_for_metrics(sums[None]).sum(0).tolist()
        mode = "train" if model.training else "eval"
        self._metrics[mode]["entropy"].append(entropy / max(learned, 1))
        self._metrics[mode]["mean_token_accuracy"].append(correct / max(learned, 1))
        if mode == "train":
            self._total_train_tokens += int(seen)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        total = found.learned if num_items_in_batch is None else num_items_in_batch
        value = found.loss / torch.as_tensor(total).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            value = value * self.accelerator.num_processes  # the count is of all ranks, and DDP takes the mean of them
        return value

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.by_length:
            return super()._get_train_sampler(train_dataset)
        import pyarrow.compute as pc

        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = pc.list_value_length(rows.data.column("input_ids")).to_pylist()
        step = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return ByLength(lengths, step, self.args.seed if self.args.data_seed is None else self.args.data_seed)
