"""Importance sampling: correct for different probabilities of a token in the rollout sampler and in the trainer.

TRL 1.16 applies the same formulas to vLLM's rollouts, with the same settings (`vllm_importance_sampling_mode`,
`vllm_importance_sampling_clip_min` and `_max`). TRL needs an additional forward pass for the trainer's
log-probabilities. Here the log-probabilities of the loss are used instead, as long as the weights have not changed
since the rollouts.

Shapes: B = completions, C = tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def importance_ratio(
    trainer: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor, mode: str, low: float | None, high: float | None
) -> torch.Tensor:
    """Return the ratio of the trainer's probabilities to the sampler's, truncated or masked outside of the limits.

    Args:
        trainer: [B, C] log-probabilities of the completions' tokens in the trainer.
        sampler: [B, C] log-probabilities with which the tokens were drawn.
        mask: [B, C], 1 for tokens that are learned.
        mode: `token_truncate`, `token_mask`, `sequence_truncate` or `sequence_mask`.
        low: the lower limit.
        high: the upper limit.

    Returns:
        Ratios of shape [B, C] for the `token` modes, and [B, 1] for the `sequence` modes.
    """
    difference = torch.nan_to_num((trainer - sampler) * mask, nan=0.0)
    if mode.startswith("sequence"):
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=low, max=high)
    outside = (ratio < (-math.inf if low is None else low)) | (ratio > (math.inf if high is None else high))
    return ratio.masked_fill(outside, 0.0)


def correction_metrics(
    trainer: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor, ratio: torch.Tensor
) -> dict[str, float]:
    """Return the metrics that TRL logs about the correction, under TRL's names, for the completions of one process."""
    learned = mask.bool()
    difference = (trainer - sampler).abs()[learned]
    ratios = ratio.flatten() if ratio.shape[1] == 1 else ratio[learned]
    if not len(difference):
        return {}
    return {
        "sampling/sampling_logp_difference/mean": difference.mean().item(),
        "sampling/sampling_logp_difference/max": difference.max().item(),
        "sampling/importance_sampling_ratio/min": ratios.min().item(),
        "sampling/importance_sampling_ratio/mean": ratios.mean().item(),
        "sampling/importance_sampling_ratio/max": ratios.max().item(),
    }


def settings_of(args: Any) -> dict[str, Any]:
    """Return the keyword arguments of `importance_ratio` that a GRPOConfig determines."""
    return {
        "mode": args.vllm_importance_sampling_mode,
        "low": args.vllm_importance_sampling_clip_min,
        "high": args.vllm_importance_sampling_clip_max,
    }
