"""Draw the tokens of GRPO's rollouts in the same way as `generate` of transformers, and keep their log-probabilities.

Each completion has a separate seed, so that it does not depend on the completions that are decoded with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignment.evaluation.engines.decoding import DecodedSequence

_FOLLOWED = frozenset(
    ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "eos_token_id")
)
"""Keys of the GRPO setting `generation_kwargs` that `RolloutSampler` or the CPU decoder implements."""


def sampling_reason(args: Any) -> str | None:
    """Return a message that names a setting of the GRPOConfig that only transformers' `generate` implements, or None if
    there is no such setting.
    """
    if args.use_transformers_continuous_batching:
        return "use_transformers_continuous_batching"
    if args.cache_implementation is not None:
        return f"cache_implementation: {args.cache_implementation}"
    other = sorted(set(args.generation_kwargs or {}) - _FOLLOWED)
    return f"generation_kwargs: {', '.join(other)}" if other else None


class RolloutSampler:
    """Draws the next token of each sequence, and stores the drawn tokens and log-probabilities of every sequence.

    Shapes: B = sequences, V = vocabulary, T = longest sequence, prompt included.
    """

    def __init__(self, config: Any) -> None:
        """Make transformers' logits processors for a GenerationConfig, in the order of `generate`."""
        self.drawn: dict[str, list[tuple[int, float]]] = {}
        """Pairs (token id, log-probability) of each completion, including the end token, keyed by the decoder's job."""
        self.processors: Any = LogitsProcessorList()
        self.reads_tokens = config.repetition_penalty not in (None, 1.0)
        if self.reads_tokens:
            self.processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        if config.temperature not in (None, 1.0):
            self.processors.append(TemperatureLogitsWarper(config.temperature))
        if config.top_k:
            self.processors.append(TopKLogitsWarper(config.top_k))
        if config.top_p is not None and config.top_p < 1:
            self.processors.append(TopPLogitsWarper(config.top_p))
        if config.min_p is not None:
            self.processors.append(MinPLogitsWarper(config.min_p))

    def __call__(self, logits: torch.Tensor, sequences: Sequence[DecodedSequence]) -> list[int]:
        """Return the next token of each sequence. The token of a sequence that has ended is arbitrary.

        Args:
            logits: [B, V], in float32.
            sequences: the B sequences.
        """
        chosen = [0] * len(sequences)
        running = [index for index, sequence in enumerate(sequences) if sequence.finish is None]
        if len(running) < len(sequences):
            logits = logits[running]
        if not running:
            return chosen
        active = [sequences[index] for index in running]
        scores = self.processors(self._tokens(active), logits)
        log_probs = torch.log_softmax(scores, dim=-1)
        # In float64: the sum over a vocabulary in float32 loses its rarest tokens.
        total = log_probs.double().exp_().cumsum(-1)
        draws = torch.tensor([sequence.random.random() for sequence in active], dtype=torch.float64)
        # `right`: a token without probability is never the first whose sum is above the draw.
        picks = torch.searchsorted(total, (draws * total[:, -1])[:, None], right=True)
        picks = picks.clamp_(max=logits.shape[-1] - 1)
        values = log_probs.gather(-1, picks)[:, 0].tolist()
        for index, sequence, token, value in zip(running, active, picks[:, 0].tolist(), values, strict=True):
            chosen[index] = token
            self.drawn.setdefault(sequence.job.key, []).append((token, value))
        return chosen

    def _tokens(self, sequences: Sequence[DecodedSequence]) -> torch.Tensor:
        """Return the token ids of prompts and completions, [B, T], or [B, 0] if no setting depends on these ids."""
        if not self.reads_tokens:
            return torch.empty((len(sequences), 0), dtype=torch.long)
        rows = [torch.tensor([*sequence.job.ids, *sequence.new]) for sequence in sequences]
        longest = max(map(len, rows))
        # Filled up with a token that is in the row anyway: a token counts once, however often it is there.
        return torch.stack([torch.cat([row, row[:1].expand(longest - len(row))]) for row in rows])
