"""Drawn surfaces: patterns that tables and walls are covered with, the same ones always."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Pixels of a pattern, which repeats without a seam."""


def draw_pattern(number: int) -> NDArray[np.uint8]:
    """The pattern of a number, [SIDE, SIDE, 3]: clouds, stripes, dots, tiles or grain, in two colours of its own."""
    rng = np.random.default_rng([number, 71])
    kinds: tuple[Callable[[np.random.Generator], NDArray[np.float64]], ...] = (_clouds, _stripes, _dots, _tiles, _grain)
    share = kinds[number % len(kinds)](rng)[..., None]
    dark, light = rng.uniform(0.15, 0.7, 3), rng.uniform(0.5, 1.0, 3)
    return (255 * (dark + (light - dark) * share)).round().astype(np.uint8)


def _clouds(rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise in four octaves, from 0 to 1."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(1, 5):
        total += _noise(rng, 2**octave) / octave
    total -= total.min()
    return total / float(total.max())


def _noise(rng: np.random.Generator, points: int) -> NDArray[np.float64]:
    """Random values at so many points a side, a smooth way between them, and round at the edges."""
    values = rng.uniform(size=(points, points))
    places = np.arange(SIDE) * points / SIDE
    first = places.astype(int)
    share = places - first
    share = share * share * (3 - 2 * share)
    after = (first + 1) % points
    rows = values[first] * (1 - share[:, None]) + values[after] * share[:, None]
    smooth: NDArray[np.float64] = rows[:, first] * (1 - share) + rows[:, after] * share
    return smooth


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return y, x


def _stripes(rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = _grid()
    across, along = rng.integers(0, 5), rng.integers(1, 5)
    wave = np.sin(2 * np.pi * (across * x + along * y) + rng.uniform(0, 2 * np.pi))
    return np.clip(0.5 + wave * rng.uniform(0.5, 3), 0, 1)


def _dots(rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = _grid()
    number, radius = rng.integers(2, 6), rng.uniform(0.15, 0.4)
    distance = np.hypot(x * number % 1 - 0.5, y * number % 1 - 0.5)
    return np.clip((radius - distance) * 12 + 0.5, 0, 1)


def _tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    number = int(rng.choice([2, 4, 8]))
    return rng.uniform(size=(number, number)).repeat(SIDE // number, axis=0).repeat(SIDE // number, axis=1)


def _grain(rng: np.random.Generator) -> NDArray[np.float64]:
    """Lines like those of wood, bent by smooth noise."""
    _, x = _grid()
    lines = np.sin(2 * np.pi * (rng.integers(3, 8) * x + rng.uniform(0.4, 1.2) * _noise(rng, 4)))
    return np.clip(0.5 + 0.4 * lines + 0.3 * (_noise(rng, 64) - 0.5), 0, 1)
