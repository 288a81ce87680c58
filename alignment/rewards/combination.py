"""Combines several rewards into a weighted sum, and logs the mean of each reward."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.environments.rollout_environment import COUNTS, RolloutEnvironment
from alignment.rewards.answers import SUBMISSION
from alignment.rewards.execution import PROBLEM
from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores

ENVIRONMENT_SCORE = "environment_score"
"""Name of the column with the value that `get_reward` of each rollout's environment returned."""
TIER_COLUMN = "tier"
"""Name of the column with the tier of each task: `B` if a program can forge its verdict, otherwise `A`."""


@dataclass(frozen=True)
class RewardPart:
    """One reward of the weighted sum."""

    name: str
    """Name of the reward. The metric is called `reward_parts/NAME`."""
    reward: RewardFunction
    weight: float
    required: bool = False
    """If True, a completion for which this part has no score gets no reward at all. If False, the sum is then computed
    without this part. True for parts that need test results: without them, the other parts would reward only the
    form of a program."""


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
        environments = columns.pop("environments", None)
        if environments is not None:
            columns |= _environment_columns(environments)
            log_counts(environments, columns.get("log_metric"))
        scores = await asyncio.gather(*(part.reward(prompts, completions, **columns) for part in parts))
        log_metric = columns.get("log_metric")
        sums: Scores = [0.0] * len(completions)
        for part, column in zip(parts, scores, strict=True):
            known = [score for score in column if score is not None]
            if log_metric is not None and known:
                log_metric(f"reward_parts/{part.name}", sum(known) / len(known))
            sums = [_add(part, before, score) for before, score in zip(sums, column, strict=True)]
        problems = columns.get(PROBLEM) or [None] * len(sums)
        sums = [score if problem is None else None for score, problem in zip(sums, problems, strict=True)]
        log_by_tier(sums, columns.get(TIER_COLUMN) or [], log_metric)
        return sums

    reward.__name__ = "combined"
    return reward


def _environment_columns(environments: Sequence[RolloutEnvironment]) -> dict[str, list[Any]]:
    """Return the results of the environments as columns for the rewards.

    Environments themselves can't be sent to the separate process of a reward.
    """
    scores = [environment.score for environment in environments]  # before the outcomes: a score may fail
    outcomes = [environment.outcome for environment in environments]
    return {
        ENVIRONMENT_SCORE: scores,
        SUBMISSION: [outcome.submission for outcome in outcomes],
        PROBLEM: [outcome.problem for outcome in outcomes],
    }


def log_by_tier(rewards: Scores, tiers: Sequence[str], log_metric: Callable[[str, float], None] | None) -> None:
    """Log the mean reward of the tasks of each tier as `reward_by_tier/TIER`.

    A reward of tier B that rises alone is a sign that the model learns to forge verdicts.
    """
    if log_metric is None or len(tiers) != len(rewards):
        return
    for tier in sorted(set(tiers)):
        known = [reward for reward, other in zip(rewards, tiers, strict=True) if other == tier and reward is not None]
        if known:
            log_metric(f"reward_by_tier/{tier}", sum(known) / len(known))


def log_counts(environments: Sequence[RolloutEnvironment], log_metric: Callable[[str, float], None] | None) -> None:
    """Log each count as its mean over the rollouts, and log the share of rollouts whose environment failed."""
    if log_metric is None or not environments:
        return
    outcomes = [environment.outcome for environment in environments]
    for name in COUNTS:
        log_metric(f"environment/{name}", sum(outcome.counts[name] for outcome in outcomes) / len(outcomes))
    log_metric("environment/failed", sum(outcome.problem is not None for outcome in outcomes) / len(outcomes))


async def environment_score(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
    """Score each completion by the value that `get_reward` of its environment returned."""
    return list(columns[ENVIRONMENT_SCORE])


def _add(part: RewardPart, before: float | None, score: float | None) -> float | None:
    if before is None or (score is None and part.required):
        return None
    return before if score is None else before + part.weight * score
