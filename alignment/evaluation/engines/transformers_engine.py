"""Batched generation with transformers: sorted by length, left-padded, greedy or sampled, cut at stop ids and strings.

A sample depends on its own seed alone, not on which batch it came in (up to the arithmetic noise of batching).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

STOP_CHECK_INTERVAL = 8
"""Steps between searches for stop strings; what was generated too much is cut off."""


@dataclass(frozen=True)
class Job:
    """One completion to generate."""

    key: str
    ids: list[int]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What came out: `finish` is `stop`, `length`, or `prompt_too_long` (then the text is empty)."""

    text: str
    tokens: int
    finish: str


class Engine(Protocol):
    """What generates. Completions come in any order, as they get ready."""

    tokenizer: Any
    stop_ids: tuple[int, ...]
    max_length: int
    batch_size: int | None
    """Sequences at once; None: as many as fit."""

    def generate(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Completion]]: ...


def split_by_length(jobs: Sequence[Job], max_length: int) -> tuple[list[Job], list[tuple[Job, Completion]]]:
    """Jobs whose prompt leaves room for a token, and the others, already answered."""
    fitting = [job for job in jobs if len(job.ids) + 1 <= max_length]
    answered = [(job, Completion("", 0, "prompt_too_long")) for job in jobs if len(job.ids) + 1 > max_length]
    return fitting, answered


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """`text` before the first stop string, and whether there was one."""
    found = [index for index in (text.find(string) for string in stop) if index >= 0]
    return (text[: min(found)], True) if found else (text, False)


def end_ids(tokenizer: Any, generation_config: Any) -> tuple[int, ...]:
    """Ids that end every completion: EOS of the tokenizer and of the generation config, and ChatML's end of turn."""
    ids = {tokenizer.eos_token_id}
    configured = getattr(generation_config, "eos_token_id", None)
    ids |= set(configured) if isinstance(configured, list) else {configured}
    known = tokenizer.get_vocab()
    ids |= {known.get(token) for token in ("<|endoftext|>", "<|im_end|>")}
    return tuple(sorted(token for token in ids if token is not None))


class TransformersEngine:
    """A checkpoint folder (or hub name) in this process, on the accelerator if there is one."""

    def __init__(self, model_path: str, *, batch_size: int | None = None, device: str | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if device is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)
        self.model = model.to(self.device).eval()
        self.stop_ids = end_ids(self.tokenizer, self.model.generation_config)
        self.max_length = int(getattr(self.model.config, "max_position_embeddings", 0) or 2**31)
        self.batch_size = batch_size

    def generate(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Completion]]:
        """Longest prompts first, so that what does not fit into memory shows at once."""
        import torch

        fitting, too_long = split_by_length(jobs, self.max_length)
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
                logger.warning("out of memory with %d sequences at once: going on with %d", size, limit)
                continue
            yield from done
            waiting = waiting[size:]

    def _batch_size(self, longest: Job) -> int:
        """As many sequences as half of the free memory holds keys and values for; at most 64 on a CPU, 256 else."""
        import torch

        config = self.model.config
        if self.device.type != "cuda":
            return 64
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(min(256, max(1, free // 2 // (per_token * (len(longest.ids) + longest.max_new_tokens)))))

    def _generate_batch(self, jobs: Sequence[Job]) -> list[tuple[Job, Completion]]:
        """Decode together; finished rows leave the batch once they are half of it."""
        import torch
        from transformers import DynamicCache

        with torch.inference_mode():
            longest = max(len(job.ids) for job in jobs)
            pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.stop_ids[0]
            padded = [[pad] * (longest - len(job.ids)) + job.ids for job in jobs]
            ids = torch.tensor(padded, device=self.device)
            mask = torch.tensor([[0] * (longest - len(job.ids)) + [1] * len(job.ids) for job in jobs])
            mask = mask.to(self.device)
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            cache = DynamicCache(config=self.model.config)
            rows = [Row(job, self.max_length - len(job.ids)) for job in jobs]
            active = list(rows)
            while True:
                output = self.model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                tokens = choose(output.logits[:, -1].float(), active)
                for row, token in zip(active, tokens, strict=True):
                    row.add(token, self.stop_ids, self.tokenizer)
                alive = [index for index, row in enumerate(active) if row.finish is None]
                if not alive:
                    break
                ids = torch.tensor([[token] for token in tokens], device=self.device)
                positions = positions[:, -1:] + 1
                if len(alive) <= len(active) // 2:
                    kept = torch.tensor(alive, device=self.device)
                    cache.batch_select_indices(kept)
                    ids, mask, positions = ids[kept], mask[kept], positions[kept]
                    active = [active[index] for index in alive]
                mask = torch.cat([mask, mask.new_ones((len(active), 1))], dim=1)
        return [(row.job, row.completion(self.tokenizer)) for row in rows]


class Row:
    """One sequence of a batch."""

    def __init__(self, job: Job, room: int) -> None:
        self.job = job
        self.limit = min(job.max_new_tokens, room)
        self.new: list[int] = []
        self.finish: str | None = None
        self.window = STOP_CHECK_INTERVAL + max((len(string.encode()) for string in job.stop), default=0)
        self.random = random.Random(job.seed)

    def add(self, token: int, stop_ids: tuple[int, ...], tokenizer: Any) -> None:
        if self.finish is not None:
            return
        if token in stop_ids or token in self.job.stop_ids:
            self.finish = "stop"
            return
        self.new.append(token)
        if len(self.new) >= self.limit:
            self.finish = "length"
        elif self.job.stop and len(self.new) % STOP_CHECK_INTERVAL == 0:
            tail = tokenizer.decode(self.new[-self.window :], skip_special_tokens=True)
            if cut_at_stop(tail, self.job.stop)[1]:
                self.finish = "stop"

    def completion(self, tokenizer: Any) -> Completion:
        text, cut = cut_at_stop(tokenizer.decode(self.new, skip_special_tokens=True), self.job.stop)
        assert self.finish is not None
        return Completion(text, len(self.new), "stop" if cut else self.finish)


def choose(logits: Any, rows: Sequence[Row]) -> list[int]:
    """The next token of each row: the most likely one, or a draw with the row's own random numbers."""
    chosen = logits.argmax(-1).tolist()
    drawn = [index for index, row in enumerate(rows) if row.job.temperature > 0 and row.finish is None]
    # Only a nucleus needs its tokens in order, and sorting is a third of a small model's step.
    for nucleus in (False, True):
        picked = [index for index in drawn if (rows[index].job.top_p < 1) is nucleus]
        if picked:
            tokens = _draw(logits[picked], [rows[index] for index in picked], nucleus)
            for index, token in zip(picked, tokens, strict=True):
                chosen[index] = token
    return chosen


def _draw(logits: Any, rows: Sequence[Row], nucleus: bool) -> list[int]:
    """One token for each row of `logits`, shape [rows, vocabulary]; with `nucleus`, of the smallest set of share `top_p`."""
    import torch

    temperature = torch.tensor([row.job.temperature for row in rows], device=logits.device)
    share = torch.softmax(logits / temperature[:, None], dim=-1)
    order = None
    if nucleus:
        top_p = torch.tensor([row.job.top_p for row in rows], device=logits.device)
        share, order = share.sort(descending=True, dim=-1, stable=True)
        below = share.cumsum(-1) - share  # the probability of everything more likely
        share = torch.where(below < top_p[:, None], share, 0.0)
    total = share.cumsum(-1)
    draws = torch.tensor([row.random.random() for row in rows], device=logits.device)
    picks = torch.searchsorted(total, (draws * total[:, -1])[:, None]).clamp(max=logits.shape[-1] - 1)
    tokens: list[int] = (picks if order is None else order.gather(1, picks))[:, 0].tolist()
    return tokens
