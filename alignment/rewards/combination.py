"""The weighted sum of several rewards, with a metric for each of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores


@dataclass(frozen=True)
class RewardPart:
    """One term of the sum."""

    name: str
    """Its metric is `reward_parts/NAME`."""
    reward: RewardFunction
    weight: float
    required: bool = False
    """A completion that this part cannot score has no reward at all. Set for verdicts: without one, the other parts
    alone would reward the looks of a program. Other parts that cannot score a completion are left out of its sum."""


def combined(parts: Sequence[RewardPart]) -> RewardFunction:
    """Return one reward: the sum of weight * score over all parts.

    All parts run at the same time. The mean score of each part is logged as `reward_parts/NAME`.

    Raises:
        ValueError: there are no parts, two have the same name, or a weight is not finite.
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
