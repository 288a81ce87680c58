"""Compare two checkpoints on the same tasks: tasks won and lost, and a significance test of the difference."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.evaluation.statistics.intervals import BOOTSTRAP_RESAMPLES, resampled_means
from alignment.evaluation.store import read_jsonl


@dataclass(frozen=True)
class PairedComparison:
    """Mean scores (from 0 to 1) of two checkpoints on the tasks that both results contain, and their difference."""

    n: int
    """Number of tasks."""
    before: float
    after: float
    difference: float
    """after - before. The 95% bootstrap interval of the difference is from `low` to `high`."""
    low: float
    high: float
    p_value: float
    """Two-sided p-value: exact McNemar test if all scores are 0 or 1, else paired bootstrap of the mean difference."""
    won: list[str]
    """Ids of the tasks on which `after` scored higher."""
    lost: list[str]
    """Ids of the tasks on which `before` scored higher."""


def compare_scores(before: dict[str, float], after: dict[str, float], seed: int = 0) -> PairedComparison:
    """Compare the scores of two checkpoints, given by task id, on the tasks that both results contain.

    The interval, and the p-value of scores other than 0 and 1, come from a paired bootstrap, which resamples tasks
    together with the scores of both checkpoints (Koehn, 2004, "Statistical Significance Tests for Machine Translation
    Evaluation"). The smallest possible p-value from B resamples is 2 / B.

    Raises:
        ValueError: the two results have no task in common.
    """
    tasks = [task for task in before if task in after]
    if not tasks:
        raise ValueError("the two results share no task: compare the same benchmark with the same rows")
    first = np.array([before[task] for task in tasks], dtype=float)
    second = np.array([after[task] for task in tasks], dtype=float)
    gaps = second - first
    won = [task for task, gap in zip(tasks, gaps, strict=True) if gap > 0]
    lost = [task for task, gap in zip(tasks, gaps, strict=True) if gap < 0]
    means = resampled_means(gaps, seed)
    low, high = (float(value) for value in np.percentile(means, [2.5, 97.5]))
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        p_value = mcnemar(len(won), len(lost))
    else:
        tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
        p_value = min(1.0, 2 * max(tail, 1 / BOOTSTRAP_RESAMPLES))
    return PairedComparison(
        n=len(tasks),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(gaps.mean()),
        low=low,
        high=high,
        p_value=p_value,
        won=won,
        lost=lost,
    )


def mcnemar(won: int, lost: int) -> float:
    """Compute the p-value of the exact two-sided McNemar test, a binomial test of `won` against `lost` with p = 1/2.

    Source: McNemar, 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 153-157.
    """
    changed = won + lost
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, index) for index in range(min(won, lost) + 1)) / 2**changed
    return min(1.0, 2 * tail)


def compare(before: str | Path, after: str | Path) -> list[dict[str, Any]]:
    """Compare two result folders of `evaluate` or `grade_completions`, separately for each benchmark and score.

    Returns:
        One row per benchmark and score: `{benchmark, score, n, before, after, difference, low, high, p_value, won,
        lost}`. `before`, `after`, `difference`, `low` and `high` are percents.

    Raises:
        ValueError: a folder has no verdicts, or the two folders have no benchmark in common.
    """
    first, second = _task_scores(Path(before)), _task_scores(Path(after))
    rows = []
    for key in first:
        if key not in second:
            continue
        row = asdict(compare_scores(first[key], second[key]))
        for name in ("before", "after", "difference", "low", "high"):
            row[name] *= 100
        rows.append({"benchmark": key[0], "score": key[1], **row})
    if not rows:
        raise ValueError(f"{before} and {after} have no benchmark in common")
    return rows


def _task_scores(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Read the mean score of each task over its samples.

    The result maps (benchmark, name of the score) to a mapping from task id to mean score.
    """
    path = folder / "verdicts.jsonl"
    if not path.exists():
        raise ValueError(f"{folder} has no verdicts.jsonl: run `align evaluate` with that folder first")
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in read_jsonl(path):
        for score, value in row["scores"].items():
            values.setdefault((row["benchmark"], score), {}).setdefault(row["task_id"], []).append(value)
    return {
        key: {task: sum(samples) / len(samples) for task, samples in tasks.items()} for key, tasks in values.items()
    }
