"""Code shared by engines that compute logits in this process: choosing tokens, stop conditions, prompt lengths.

Shapes: B = sequences, V = vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from alignment.evaluation.engines.protocol import Completion, Finish, GenerationJob

STOP_CHECK_INTERVAL = 8
"""Number of decoding steps between two searches for stop strings. Tokens that were generated after a stop string are
cut off."""


def split_by_length(
    jobs: Sequence[GenerationJob], max_length: int
) -> tuple[list[GenerationJob], list[tuple[GenerationJob, Completion]]]:
    """Separate jobs whose prompt leaves room for at least one new token from jobs whose prompt is too long.

    Returns:
        The jobs that fit, and the jobs that are too long, each with an empty completion.
    """
    fitting = [job for job in jobs if len(job.ids) + 1 <= max_length]
    too_long = [(job, Completion("", 0, "prompt_too_long")) for job in jobs if len(job.ids) + 1 > max_length]
    return fitting, too_long


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return `text` up to the first stop string, and whether `text` contains a stop string."""
    positions = [index for index in (text.find(string) for string in stop) if index >= 0]
    return (text[: min(positions)], True) if positions else (text, False)


def end_token_ids(tokenizer: Any, generation_config: Any) -> tuple[int, ...]:
    """Return the token ids that end every completion.

    They are the EOS tokens of the tokenizer and of the generation config, `<|endoftext|>` and `<|im_end|>`.
    """
    ids = {tokenizer.eos_token_id}
    configured = getattr(generation_config, "eos_token_id", None)
    ids |= set(configured) if isinstance(configured, list) else {configured}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary.get(token) for token in ("<|endoftext|>", "<|im_end|>")}
    return tuple(sorted(token for token in ids if token is not None))


class DecodedSequence:
    """A sequence that is being generated: its new tokens, its random generator, and why it ended."""

    def __init__(self, job: GenerationJob, free_positions: int) -> None:
        """Start a sequence for a job.

        `free_positions` is the number of tokens that the model can take after the prompt.
        """
        self.job = job
        self.limit = min(job.max_new_tokens, free_positions)
        self.new: list[int] = []
        self.finish: Finish | None = None
        self.random = random.Random(job.seed)
        # A stop string of n bytes has at most n tokens, and it became complete at most one interval ago.
        self._window = STOP_CHECK_INTERVAL + max((len(string.encode()) for string in job.stop), default=0)

    def add(self, token: int, stop_ids: tuple[int, ...], tokenizer: Any) -> None:
        """Append a token. If the token ends the sequence, set `finish`. Do nothing if the sequence had ended before."""
        if self.finish is not None:
            return
        if token in stop_ids or token in self.job.stop_ids:
            self.finish = "stop"
            return
        self.new.append(token)
        if len(self.new) >= self.limit:
            self.finish = "length"
        elif self.job.stop and len(self.new) % STOP_CHECK_INTERVAL == 0:
            tail = tokenizer.decode(self.new[-self._window :], skip_special_tokens=True)
            if cut_at_stop(tail, self.job.stop)[1]:
                self.finish = "stop"

    def completion(self, tokenizer: Any) -> Completion:
        """Return the completion of a sequence that has ended."""
        text, cut = cut_at_stop(tokenizer.decode(self.new, skip_special_tokens=True), self.job.stop)
        assert self.finish is not None
        return Completion(text, len(self.new), "stop" if cut else self.finish)


def choose_tokens(logits: Any, sequences: Sequence[DecodedSequence]) -> list[int]:
    """Return the next token of each sequence: the most likely token, or one drawn with the sequence's random generator.

    Args:
        logits: tensor [B, V] of float32.
        sequences: B sequences. A sequence that has ended gets an arbitrary token.
    """
    logits = penalize_repetition(logits, sequences)
    chosen = logits.argmax(-1).tolist()
    sampled = [index for index, item in enumerate(sequences) if item.job.temperature > 0 and item.finish is None]
    # Only filters need sorted tokens, and sorting takes a third of a small model's step.
    for filtered in (False, True):
        group = [index for index in sampled if _is_filtered(sequences[index].job) is filtered]
        if group:
            tokens = _draw(logits[group], [sequences[index] for index in group], filtered)
            for index, token in zip(group, tokens, strict=True):
                chosen[index] = token
    return chosen


def _is_filtered(job: GenerationJob) -> bool:
    return job.top_p < 1 or job.top_k > 0 or job.min_p > 0


def penalize_repetition(logits: Any, sequences: Sequence[DecodedSequence]) -> Any:
    """Return logits [B, V] with the repetition penalty of each sequence. The given tensor is not changed."""
    penalized = [
        (index, item)
        for index, item in enumerate(sequences)
        if item.job.repetition_penalty != 1 and item.finish is None
    ]
    if not penalized:
        return logits
    import torch

    logits = logits.clone()
    for index, item in penalized:
        tokens = torch.tensor(sorted({*item.job.ids, *item.new}), device=logits.device)
        row = logits[index, tokens]
        penalty = item.job.repetition_penalty
        logits[index, tokens] = torch.where(row > 0, row / penalty, row * penalty)
    return logits


def _draw(logits: Any, sequences: Sequence[DecodedSequence], filtered: bool) -> list[int]:
    """Draw one token for each row of `logits` [B, V]. With `filtered`, apply top_k, top_p and min_p, in this order."""
    import torch

    temperature = torch.tensor([item.job.temperature for item in sequences], device=logits.device)
    share = torch.softmax(logits / temperature[:, None], dim=-1)
    order = None
    if filtered:
        share, order = share.sort(descending=True, dim=-1, stable=True)
        top_k = torch.tensor([item.job.top_k or share.shape[-1] for item in sequences], device=logits.device)
        top_p = torch.tensor([item.job.top_p for item in sequences], device=logits.device)
        min_p = torch.tensor([item.job.min_p for item in sequences], device=logits.device)
        share = torch.where(torch.arange(share.shape[-1], device=logits.device) < top_k[:, None], share, 0.0)
        # The probability of all tokens that are more likely, among the tokens that top_k keeps.
        kept = torch.where(top_k < share.shape[-1], share.sum(-1), 1.0)
        below = share.cumsum(-1) - share
        share = torch.where(below < (top_p * kept)[:, None], share, 0.0)
        share = torch.where(share >= min_p[:, None] * share[:, :1], share, 0.0)
    total = share.cumsum(-1)
    draws = torch.tensor([item.random.random() for item in sequences], device=logits.device)
    picks = torch.searchsorted(total, (draws * total[:, -1])[:, None]).clamp(max=logits.shape[-1] - 1)
    tokens: list[int] = (picks if order is None else order.gather(1, picks))[:, 0].tolist()
    return tokens
