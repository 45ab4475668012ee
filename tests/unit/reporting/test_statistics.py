"""The arithmetic below the page: intervals of differences, labels that do not touch, smoothing that loses nothing."""

import numpy as np
import pytest

from vjepa2cli.reporting.figures import smoothed, spread
from vjepa2cli.reporting.statistics import Share, difference, minus, signed


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((47, 50), (0, 50), "above"),
        ((47, 50), (38, 50), "suggestive"),
        ((47, 50), (44, 50), "none"),
        ((9, 50), (44, 50), "below"),
    ],
)
def test_a_difference_is_judged_with_its_interval(first: tuple[int, int], second: tuple[int, int], verdict: str) -> None:
    gap = difference(Share.of(*first), Share.of(*second))
    assert gap.verdict == verdict
    assert gap.low <= gap.gap <= gap.high


def test_newcombe_interval_matches_the_published_example() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    gap = difference(Share.of(56, 70), Share.of(48, 80))
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_labels_are_spread_no_further_than_they_must() -> None:
    assert spread([1.0, 5.0, 9.0], gap=1.0) == [1.0, 5.0, 9.0]
    assert spread([2.0, 2.0, 9.0], gap=1.0) == [1.5, 2.5, 9.0]
    placed = spread([1.0, 1.1, 1.2, 1.9], gap=1.0)
    assert np.diff(placed) == pytest.approx(1.0)
    assert np.mean(placed) == pytest.approx(np.mean([1.0, 1.1, 1.2, 1.9]))


def test_smoothing_keeps_every_value_once() -> None:
    values = [float(value) for value in range(1000)]
    places, means = smoothed(values, points=60)
    assert len(means) <= 60
    assert means == pytest.approx(places)
    assert smoothed([3.0, 1.0], points=60) == ([0.0, 1.0], [3.0, 1.0])


def test_numbers_bear_a_minus_sign() -> None:
    assert [signed(number) for number in (6.4, -0.6, 0.4)] == ["+6", "−1", "0"]
    assert (minus(-0.5, 2), minus(0.5, 2)) == ("−0.50", "0.50")
