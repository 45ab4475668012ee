"""Intervals and errors that stand beside a score: Wilson for a share, standard error or bootstrap for a mean."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
_RESAMPLES = 1000


def wilson_interval(successes: int, n: int, *, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share of `successes` among `n` trials, 95 % by default; (0, 1) where n is 0.

    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == n else (middle + spread) / scale
    return low, high


def share(successes: int, n: int) -> dict[str, float | int | list[float] | None]:
    """A share with its counts and its Wilson 95 % interval, as a report holds it."""
    return {
        "successes": successes,
        "n": n,
        "rate": successes / n if n else None,
        "interval": list(wilson_interval(successes, n)),
    }


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean of independent `values`; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r of two sequences; None where one of them is constant or they are shorter than two."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def clustered_interval(values: NDArray[np.float64], groups: NDArray[np.int64], *, key: Sequence[int]) -> list[float]:
    """The 95 % bootstrap interval of the mean of `values`, drawn by whole groups, for values of one group are alike.

    Where there is one group alone, single values are drawn. `key` seeds the draws.
    """
    _, group = np.unique(groups, return_inverse=True)
    if group.max() == 0:
        group = np.arange(len(values))
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(key).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(end) for end in np.percentile(means, (2.5, 97.5))]
