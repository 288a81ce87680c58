"""Generate in batches with transformers in this process, on a GPU if there is one.

Prompts are sorted by length and padded on the left. Shapes: B = sequences of a batch, T = longest prompt,
V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens, end_token_ids, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)
from alignment.logs import get_logger
from alignment.models.precision import resolve_dtype
from alignment.models.source import DType

logger = get_logger(__name__)


class TransformersEngine:
    """An engine that runs a checkpoint with transformers."""

    name = "transformers"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS

    def __init__(
        self,
        model_path: str,
        *,
        batch_size: int | None = None,
        device: str | None = None,
        dtype: DType = "auto",
    ) -> None:
        """Load the model.

        Args:
            model_path: a checkpoint folder, or a name on the hub.
            batch_size: number of sequences at the same time; by default as many as fit into memory.
            device: a torch device; by default the current GPU if there is one.
            dtype: number format of the weights; see `alignment.models.precision`.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if device is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_path)
        self.precision = resolve_dtype(dtype, self.device.type)
        model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, self.precision.dtype))
        self.model = model.to(self.device).eval()
        self.stop_ids = end_token_ids(self.tokenizer, self.model.generation_config)
        self.max_length = int(getattr(self.model.config, "max_position_embeddings", 0) or 2**31)
        self.batch_size = batch_size

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield completions batch by batch. Start with the longest prompts, so that memory runs out early or never."""
        import torch

        refuse_unsupported(jobs, self.name, self.supported_fields)
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        waiting = sorted(fitting, key=lambda job: (-len(job.ids), job.key))
        limit = self.batch_size
        while waiting:
            size = min(len(waiting), limit or self._batch_size(waiting[0]))
            try:
                done = self._generate_batch(waiting[:size])
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                limit = max(1, size // 2)
                logger.warning("out of memory with %d sequences at once: continuing with %d", size, limit)
                continue
            yield from done
            waiting = waiting[size:]

    def _batch_size(self, longest: GenerationJob) -> int:
        """Return the batch size: 64 on a CPU, and at most 256 on a GPU.

        On a GPU the batch is so small that its keys and values fit into half of the free memory.
        """
        import torch

        config = self.model.config
        if self.device.type != "cuda":
            return 64
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(min(256, max(1, free // 2 // (per_token * (len(longest.ids) + longest.max_new_tokens)))))

    def _generate_batch(self, jobs: Sequence[GenerationJob]) -> list[tuple[GenerationJob, Completion]]:
        """Generate one batch. Finished sequences are removed from the batch when they make up half of it."""
        import torch
        from transformers import DynamicCache

        with torch.inference_mode():
            longest = max(len(job.ids) for job in jobs)
            pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.stop_ids[0]
            padded = [[pad] * (longest - len(job.ids)) + job.ids for job in jobs]
            ids = torch.tensor(padded, device=self.device)  # [B, T], then [B, 1]
            mask = torch.tensor([[0] * (longest - len(job.ids)) + [1] * len(job.ids) for job in jobs])
            mask = mask.to(self.device)  # [B, T + generated]
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            cache = DynamicCache(config=self.model.config)
            sequences = [DecodedSequence(job, self.max_length - len(job.ids)) for job in jobs]
            active = list(sequences)
            while True:
                output = self.model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                tokens = choose_tokens(output.logits[:, -1].float(), active)
                for sequence, token in zip(active, tokens, strict=True):
                    sequence.add(token, self.stop_ids, self.tokenizer)
                alive = [index for index, sequence in enumerate(active) if sequence.finish is None]
                if not alive:
                    break
                ids = torch.tensor([[token] for token in tokens], device=self.device)
                positions = positions[:, -1:] + 1
                if len(alive) <= len(active) // 2:
                    remaining = torch.tensor(alive, device=self.device)
                    cache.batch_select_indices(remaining)
                    ids, mask, positions = ids[remaining], mask[remaining], positions[remaining]
                    active = [active[index] for index in alive]
                mask = torch.cat([mask, mask.new_ones((len(active), 1))], dim=1)
        return [(sequence.job, sequence.completion(self.tokenizer)) for sequence in sequences]
