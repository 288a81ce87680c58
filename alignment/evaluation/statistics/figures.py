"""Compute metrics (figures) of a benchmark from its outcomes: pass@k and mean scores, in percent with 95% intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypedDict

from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.intervals import interval, pass_at_k

REPORTED_K = (1, 5, 10, 50, 100)
"""Values of k for which pass@k is reported, provided that every task has at least k samples."""


class Figure(TypedDict):
    """One metric of one benchmark. `value`, `low` and `high` are percents."""

    benchmark: str
    metric: str
    value: float
    n: int
    """Number of tasks."""
    low: float
    high: float
    seed: int
    errors: int
    """Number of completions that could not be graded. They do not enter `value`."""


def per_task(outcomes: Iterable[Outcome], score: str) -> dict[str, list[float]]:
    """Return, for each task, the values of one score. Samples without a score (infrastructure error) are left out."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        if score in outcome.scores:
            values.setdefault(outcome.task_id, []).append(outcome.scores[score])
    return values


def figures(benchmark: str, outcomes: Sequence[Outcome], seed: int) -> list[Figure]:
    """Return all metrics of one benchmark: pass@k for the score `pass`, the mean over tasks for every other score.

    Args:
        benchmark: name of the benchmark in the results.
        outcomes: one outcome for each task and sample.
        seed: seed of the bootstrap. It is also written into the results.

    Raises:
        ValueError: no completion could be graded.
    """
    errors = sum(outcome.status == "error" for outcome in outcomes)
    if outcomes and errors == len(outcomes):
        raise ValueError(
            f"{benchmark}: none of the {errors} completions could be graded. The first error: "
            f"{outcomes[0].reason}: {outcomes[0].detail}"
        )
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.scores))
    metrics: list[Figure] = []
    for name in names:
        values = per_task(outcomes, name)
        if name == "pass":
            samples = min(Counter(outcome.task_id for outcome in outcomes).values())
            for k in [k for k in REPORTED_K if k <= samples]:
                shares = [pass_at_k(len(task), int(sum(task)), k) for task in values.values() if len(task) >= k]
                if shares:
                    metrics.append(_figure(benchmark, f"pass@{k}", shares, seed, errors))
        else:
            means = [sum(task) / len(task) for task in values.values()]
            metrics.append(_figure(benchmark, name, means, seed, errors))
    return metrics


def _figure(benchmark: str, metric: str, shares: Sequence[float], seed: int, errors: int) -> Figure:
    low, high = interval(shares, seed)
    return {
        "benchmark": benchmark,
        "metric": metric,
        "value": 100 * sum(shares) / len(shares),
        "n": len(shares),
        "low": 100 * low,
        "high": 100 * high,
        "seed": seed,
        "errors": errors,
    }
