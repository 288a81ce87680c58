"""Combines several rewards into a weighted sum, and logs the mean of each reward."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores


@dataclass(frozen=True)
class RewardPart:
    """One reward of the weighted sum."""

    name: str
    """Name of the reward. The metric is called `reward_parts/NAME`."""
    reward: RewardFunction
    weight: float
    required: bool = False
    """Whether a completion for which this part has no score gets no reward at all. True for parts that need a verdict:
    without the verdict, the other parts would reward only the form of a program. If a part that is not required has no
    score, the sum is computed without this part."""


def combined(parts: Sequence[RewardPart]) -> RewardFunction:
    """Return a reward function that computes the sum of weight * score over all parts.

    All parts run at the same time. The mean score of each part is logged as `reward_parts/NAME`.

    Raises:
        ValueError: there are no parts, two parts have the same name, or a weight is not finite.
    """
    names = [part.name for part in parts]
    if not parts or len(set(names)) != len(names):
        raise ValueError(f"a combined reward needs parts with different names, not {names}")
    if not all(math.isfinite(part.weight) for part in parts):
        raise ValueError("the weights of a combined reward must be finite numbers")

    async def reward(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        scores = await asyncio.gather(*(part.reward(prompts, completions, **columns) for part in parts))
        log_metric = columns.get("log_metric")
        sums: Scores = [0.0] * len(completions)
        for part, column in zip(parts, scores, strict=True):
            known = [score for score in column if score is not None]
            if log_metric is not None and known:
                log_metric(f"reward_parts/{part.name}", sum(known) / len(known))
            sums = [_add(part, before, score) for before, score in zip(sums, column, strict=True)]
        return sums

    reward.__name__ = "combined"
    return reward


def _add(part: RewardPart, before: float | None, score: float | None) -> float | None:
    if before is None or (score is None and part.required):
        return None
    return before if score is None else before + part.weight * score
