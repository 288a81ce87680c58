"""Generate on a CPU with `CpuDecoder`: compute each prompt once for all its samples, and refill rows that have ended.

Jobs with the same prompt form a group. Groups with the same number of samples are decoded together. When enough groups
have ended, the next prompts are computed and join the running batch. At most `batch_size` rows run at the same time,
which bounds the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from alignment.evaluation.engines.cpu_decoder import CpuDecoder, GroupCache
from alignment.evaluation.engines.decoding import DecodedSequence, choose_tokens, split_by_length
from alignment.evaluation.engines.protocol import (
    ALL_SAMPLING_FIELDS,
    Completion,
    GenerationJob,
    SamplingField,
    refuse_unsupported,
)
from alignment.progress import Progress

DEFAULT_ROWS = 64
PREFILL_TOKENS = 4096
"""Largest number of prompt tokens, including padding, that are computed in one forward pass."""
CACHE_SHARE = 0.3
"""Share of the free memory that keys and values may use."""
REFILL_SHARE = 0.75
"""New prompts join the batch when at most this share of its places for prompts is in use."""

TokenChooser = Callable[[torch.Tensor, Sequence[DecodedSequence]], list[int]]
"""Chooses the next token of each sequence from logits of shape (sequences, vocabulary), in float32."""


@dataclass
class _Group:
    """One prompt and the sequences that are sampled for it."""

    prompt: list[int]
    sequences: list[DecodedSequence]

    @property
    def alive(self) -> list[int]:
        return [index for index, sequence in enumerate(self.sequences) if sequence.finish is None]


class CpuEngine:
    """An engine that runs Qwen2 models in bfloat16 or float32 on this machine's CPU."""

    name = "transformers"
    supported_fields: frozenset[SamplingField] = ALL_SAMPLING_FIELDS

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        stop_ids: tuple[int, ...],
        max_length: int,
        batch_size: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Pack the weights of a transformers model. If the model has no adapter, it can be freed afterwards.

        Args:
            model: a Qwen2 model for which `cpu_decoder.unsupported_reason` is None.
            tokenizer: the model's tokenizer.
            stop_ids: token ids that end every completion.
            max_length: largest number of tokens of a prompt and its completion together.
            batch_size: number of rows that are decoded at the same time; 64 by default.
            dtype: the type to compute in; by default the type of the weights.
        """
        self.decoder = CpuDecoder(model, dtype)
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.max_length = max_length
        self.batch_size = batch_size
        self.choose: TokenChooser = choose_tokens
        self._cache_tokens = int(psutil.virtual_memory().available * CACHE_SHARE / self.decoder.bytes_per_token)

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield each completion when it ends.

        Start with the longest prompts, so that memory runs out early or never.
        """
        refuse_unsupported(jobs, self.name, self.supported_fields)
        fitting, too_long = split_by_length([job.tokenized(self.tokenizer) for job in jobs], self.max_length)
        yield from too_long
        rows = self.batch_size or DEFAULT_ROWS
        by_size: dict[int, list[_Group]] = {}
        for group in self._groups(fitting, rows):
            by_size.setdefault(len(group.sequences), []).append(group)
        for samples, groups in sorted(by_size.items(), reverse=True):
            groups.sort(key=lambda group: (-len(group.prompt), group.sequences[0].job.key))
            yield from self._decode(groups, samples, max(1, rows // samples))

    def _groups(self, jobs: Sequence[GenerationJob], rows: int) -> list[_Group]:
        """Group jobs with the same prompt into groups of at most `rows` jobs."""
        by_prompt: dict[tuple[int, ...], list[DecodedSequence]] = {}
        for job in jobs:
            by_prompt.setdefault(tuple(job.ids), []).append(DecodedSequence(job, self.max_length - len(job.ids)))
        return [
            _Group(list(prompt), sequences[start : start + rows])
            for prompt, sequences in by_prompt.items()
            for start in range(0, len(sequences), rows)
        ]

    def _decode(self, waiting: list[_Group], samples: int, capacity: int) -> Iterator[tuple[GenerationJob, Completion]]:
        """Decode groups that have the same number of samples.

        At most `capacity` groups are decoded at the same time.
        """
        running: list[_Group] = []
        cache: GroupCache | None = None
        # Minutes pass before the first completion ends, most of them with the prompts.
        prompts = Progress("reading prompts", len(waiting), "prompts", amount_unit="tokens")
        tokens = torch.zeros((0, samples), dtype=torch.long)  # (G, R) the last chosen tokens
        while waiting or running:
            fresh: list[tuple[GenerationJob, Completion]] = []
            batch: list[_Group] = []
            if waiting and len(running) <= REFILL_SHARE * capacity and (cache is None or cache.samples == samples):
                batch = self._next_prompts(waiting, running, capacity)
            if batch:
                cache, tokens, fresh = self._join(batch, samples, running, cache, tokens)
                prompts.advance(len(batch), sum(len(group.prompt) for group in batch))
            elif cache is not None:
                logits = self.decoder.step(cache, tokens)
                tokens, fresh = self._choose(logits, running)
            yield from fresh
            cache, tokens = self._drop_ended(running, cache, tokens)

    def _next_prompts(self, waiting: list[_Group], running: list[_Group], capacity: int) -> list[_Group]:
        """Remove the next groups from `waiting` and return them, as many as the limits of rows, memory and prefill
        tokens allow.

        `waiting` is sorted by the length of the prompts, longest first.
        """
        longest = len(waiting[0].prompt)
        free = capacity - len(running)
        fitting = self._cache_tokens // _cached_tokens(waiting[0]) - len(running)
        if fitting <= 0 and running:
            return []
        count = max(1, min(free, fitting, PREFILL_TOKENS // longest, len(waiting)))
        batch = waiting[:count]
        del waiting[:count]
        return batch

    def _join(
        self,
        batch: list[_Group],
        samples: int,
        running: list[_Group],
        cache: GroupCache | None,
        tokens: torch.Tensor,
    ) -> tuple[GroupCache, torch.Tensor, list[tuple[GenerationJob, Completion]]]:
        """Run the model on the prompts of new groups, choose the first token of each sample, and add the groups to the
        batch.
        """
        room = max(sequence.limit for group in batch for sequence in group.sequences)
        joining, logits = self.decoder.prefill([group.prompt for group in batch], samples, room)
        first, ended = self._choose(logits[:, None].expand(-1, samples, -1), batch)
        if cache is None or not running:
            cache, tokens = joining, first
        else:
            cache.join(joining)
            tokens = torch.cat([tokens, first])
        running.extend(batch)
        return cache, tokens, ended

    def _choose(
        self, logits: torch.Tensor, groups: Sequence[_Group]
    ) -> tuple[torch.Tensor, list[tuple[GenerationJob, Completion]]]:
        """Choose a token for every row of logits (G, R, V). Also return the completions that end with that token."""
        sequences = [sequence for group in groups for sequence in group.sequences]
        chosen = self.choose(logits.reshape(len(sequences), -1), sequences)
        ended: list[tuple[GenerationJob, Completion]] = []
        for sequence, token in zip(sequences, chosen, strict=True):
            if sequence.finish is None:
                sequence.add(token, self.stop_ids, self.tokenizer)
                if sequence.finish is not None:
                    ended.append((sequence.job, sequence.completion(self.tokenizer)))
        return torch.tensor(chosen).view(len(groups), -1), ended

    @staticmethod
    def _drop_ended(
        running: list[_Group], cache: GroupCache | None, tokens: torch.Tensor
    ) -> tuple[GroupCache | None, torch.Tensor]:
        """Drop finished groups once they make up a quarter of the batch.

        Also drop rows that no group needs any more.
        """
        alive = [group.alive for group in running]
        left = [number for number, indices in enumerate(alive) if indices]
        if cache is None or not running:
            return cache, tokens
        if not left:
            running.clear()
            return None, tokens[:0]
        samples = max(len(indices) for indices in alive)
        if len(left) > REFILL_SHARE * len(running) and samples > REFILL_SHARE * cache.samples:
            return cache, tokens
        # Every group keeps the same number of rows: as many as the largest number of running rows in any group. Groups
        # with fewer running rows keep some ended rows.
        rows = [_padded(alive[number], samples, cache.samples) for number in left]
        groups, picked = torch.tensor(left), torch.tensor(rows)
        cache.select(groups, picked)
        remaining = [running[number] for number in left]
        for group, indices in zip(remaining, rows, strict=True):
            group.sequences = [group.sequences[index] for index in indices]
        running[:] = remaining
        return cache, tokens[groups[:, None], picked]


def _cached_tokens(group: _Group) -> int:
    """Return how many tokens of cache a group needs: its prompt and the new tokens of all its sequences."""
    return len(group.prompt) + sum(sequence.limit for sequence in group.sequences)


def _padded(alive: list[int], size: int, samples: int) -> list[int]:
    """Return the indices of exactly `size` samples: all running samples, followed by as many finished samples as
    needed.
    """
    ended = [index for index in range(samples) if index not in alive]
    return [*alive, *ended][:size]
