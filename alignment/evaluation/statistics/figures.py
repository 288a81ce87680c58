"""From judged completions to figures: `{benchmark, metric, value, n, low, high, seed, errors}`, in percent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.intervals import interval, pass_at_k

REPORTED_K = (1, 5, 10, 50, 100)
Figure = dict[str, Any]


def per_task(outcomes: Iterable[Outcome], score: str) -> dict[str, list[float]]:
    """All values of one score by task; samples without it (infrastructure errors) are left out."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        if score in outcome.scores:
            values.setdefault(outcome.task_id, []).append(outcome.scores[score])
    return values


def figures(benchmark: str, outcomes: Sequence[Outcome], seed: int) -> list[Figure]:
    """Every metric of one benchmark: `pass@k` where programs ran, the mean of each text score else.

    `n` counts tasks; `errors` counts completions that could not be graded and are in no value. A k is reported where
    every task has that many samples.
    """
    errors = sum(outcome.status == "error" for outcome in outcomes)
    if outcomes and errors == len(outcomes):
        raise ValueError(
            f"{benchmark}: none of {errors} completions could be graded; the first says: "
            f"{outcomes[0].reason}: {outcomes[0].detail}"
        )
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.scores))
    found: list[Figure] = []
    for name in names:
        values = per_task(outcomes, name)
        if name == "pass":
            samples = min(Counter(outcome.task_id for outcome in outcomes).values())
            for k in [k for k in REPORTED_K if k <= samples]:
                shares = [pass_at_k(len(task), int(sum(task)), k) for task in values.values() if len(task) >= k]
                if shares:
                    found.append(_figure(benchmark, f"pass@{k}", shares, seed, errors))
        else:
            means = [sum(task) / len(task) for task in values.values()]
            found.append(_figure(benchmark, name, means, seed, errors))
    return found


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
