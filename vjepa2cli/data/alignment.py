"""Which of two records comes first, and by how much: cross-correlation of their changes over many episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = NDArray[Any]


@dataclass(frozen=True)
class Lag:
    """By how many rows the first record comes before the second, and the correlation there; None where nothing is alike.

    `curve` is the correlation at whole lags from -n to n.
    """

    rows: float | None
    correlation: float
    curve: tuple[float, ...]


def find_lag(pairs: Sequence[tuple[Series, Series]], *, max_lag: int, least: float = 0.0) -> Lag:
    """The lag at which pairs of series [T] are most alike, over all pairs together.

    Row t of the first is compared with row t + lag of the second, as they are: take the changes of what drifts, and the mean
    from what has one. Between whole rows a parabola through the highest three is followed. Below the correlation `least` no lag
    is named.
    """
    curve = tuple(_correlation(pairs, lag) for lag in range(-max_lag, max_lag + 1))
    best = int(np.argmax(curve))
    if not curve[best] > max(least, 0.0):
        return Lag(None, curve[best], curve)
    offset = 0.0
    if 0 < best < len(curve) - 1:
        before, here, after = curve[best - 1 : best + 2]
        bend = before - 2 * here + after
        offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return Lag(best - max_lag + offset, curve[best], curve)


def _correlation(pairs: Sequence[tuple[Series, Series]], lag: int) -> float:
    products = first_squares = second_squares = 0.0
    for first, second in pairs:
        count = min(len(first), len(second))
        if count <= abs(lag):
            continue
        a = np.asarray(first[max(0, -lag) : count - max(0, lag)], np.float64)
        b = np.asarray(second[max(0, lag) : count - max(0, -lag)], np.float64)
        products += float(a @ b)
        first_squares += float(a @ a)
        second_squares += float(b @ b)
    size = math.sqrt(first_squares * second_squares)
    return products / size if size > 0 else 0.0
