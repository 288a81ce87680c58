"""Compute pass@k, and 95% intervals of a mean over tasks.

All functions take and return plain Python numbers. Each task has one score from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""
BOOTSTRAP_RESAMPLES = 2000
"""Number of resamples that the bootstrap draws.

Efron and Tibshirani (1993, section 13.3) advise at least 1000 for percentile intervals.
"""


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Compute the unbiased estimator of pass@k for one task: 1 - C(n - correct, k) / C(n, k).

    Source: Chen et al., 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374, equation 1.

    Args:
        n: number of samples of the task.
        correct: number of samples that passed.
        k: number of samples that are drawn. The task counts as solved if one of the drawn samples passed.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct is {correct}: it must lie between 0 and the number of samples, {n}")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples of every task; there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion. Return (0, 1) if n is 0.

    Source: Wilson, 1927, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 209-212.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    scale = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / scale
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Compute a percentile bootstrap interval of the mean by resampling tasks. Return (0, 1) if there are no values.

    Source: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    if not values:
        return 0.0, 1.0
    import numpy as np

    low, high = np.percentile(resampled_means(np.asarray(values, dtype=float), seed), [2.5, 97.5])
    return float(low), float(high)


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Compute Wilson's interval if every score is 0 or 1, else a bootstrap interval over tasks."""
    if all(value in (0.0, 1.0) for value in values):
        return wilson(sum(values), len(values))
    return bootstrap(values, seed)


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of `BOOTSTRAP_RESAMPLES` resamples of `values` with replacement.

    The seed determines the result.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    means = np.empty(BOOTSTRAP_RESAMPLES)
    for index in range(BOOTSTRAP_RESAMPLES):  # one row at a time keeps memory small for thousands of tasks
        means[index] = values[generator.integers(0, len(values), len(values))].mean()
    return means
