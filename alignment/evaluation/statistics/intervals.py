"""What a score is worth: pass@k, exact match, edit similarity, intervals, and paired comparisons.

Everything here works on plain numbers; shares are between 0 and 1. Intervals are at 95%.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
BOOTSTRAP_RESAMPLES = 2000


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimator of pass@k: 1 - C(n - correct, k) / C(n, k) (HumanEval, arXiv 2107.03374)."""
    if not 0 <= correct <= n:
        raise ValueError(f"of {n} samples {correct} can't be correct")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples of every task; there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1) when nothing was measured."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    scale = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / scale
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean, resampling tasks; (0, 1) when nothing was measured."""
    if not values:
        return 0.0, 1.0
    low, high = np.percentile(_resampled_means(np.asarray(values, dtype=float), seed), [2.5, 97.5])
    return float(low), float(high)


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Wilson's interval where every task is a plain yes or no, else the bootstrap over tasks."""
    if all(value in (0.0, 1.0) for value in values):
        return wilson(sum(values), len(values))
    return bootstrap(values, seed)


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    means = np.empty(BOOTSTRAP_RESAMPLES)
    for index in range(BOOTSTRAP_RESAMPLES):  # one row at a time: thousands of tasks stay small in memory
        means[index] = values[generator.integers(0, len(values), len(values))].mean()
    return means


@dataclass(frozen=True)
class Paired:
    """Two checkpoints on the same tasks."""

    n: int
    before: float
    after: float
    difference: float
    """after - before, with its 95% bootstrap interval `low` to `high`."""
    low: float
    high: float
    p_value: float
    """Exact McNemar test for yes-or-no scores, else a paired bootstrap of the mean difference; two-sided."""
    won: list[str]
    """Tasks that only `after` solved, or where it scored higher."""
    lost: list[str]


def paired(before: dict[str, float], after: dict[str, float], seed: int = 0) -> Paired:
    """Compare scores by task id. ValueError when the two share no task."""
    tasks = [task for task in before if task in after]
    if not tasks:
        raise ValueError("the two results share no task: compare the same benchmark with the same rows")
    first = np.array([before[task] for task in tasks], dtype=float)
    second = np.array([after[task] for task in tasks], dtype=float)
    gaps = second - first
    won = [task for task, gap in zip(tasks, gaps, strict=True) if gap > 0]
    lost = [task for task, gap in zip(tasks, gaps, strict=True) if gap < 0]
    means = _resampled_means(gaps, seed)
    low, high = (float(value) for value in np.percentile(means, [2.5, 97.5]))
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        p_value = mcnemar(len(won), len(lost))
    else:
        tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
        p_value = min(1.0, 2 * max(tail, 1 / BOOTSTRAP_RESAMPLES))
    return Paired(
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
    """Exact two-sided McNemar test: how surprising the split is if a win and a loss were equally likely."""
    changed = won + lost
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, index) for index in range(min(won, lost) + 1)) / 2**changed
    return min(1.0, 2 * tail)


def edit_similarity(first: str, second: str) -> float:
    """1 minus the Levenshtein distance over the longer length, between 0 and 1; two empty strings are equal."""
    longest = max(len(first), len(second))
    return 1.0 if longest == 0 else 1.0 - levenshtein(first, second) / longest


def levenshtein(first: str, second: str) -> int:
    """Edit distance with costs 1, 1, 1."""
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for line, left in enumerate(first, 1):
        diagonal, row[0] = row[0], line
        for column, right in enumerate(second, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (left != right))
    return row[-1]


def fuzz_ratio(first: str, second: str) -> float:
    """fuzzywuzzy's `ratio` without its C library: twice the matches over both lengths, in whole percent."""
    if not first and not second:
        return 1.0
    matcher = difflib.SequenceMatcher(None, first, second)
    return round(100 * matcher.ratio()) / 100
