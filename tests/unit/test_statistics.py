"""Intervals and errors against published values."""

import pytest

from vjepa2cli.artifacts.statistics import correlation, standard_error, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (0, 10, (0.0, 0.27753)),  # the values of scipy.stats.binomtest(...).proportion_ci(method="wilson")
        (5, 10, (0.23659, 0.76341)),
        (45, 50, (0.78640, 0.95652)),
        (50, 50, (0.92865, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval_has_the_published_values(successes: int, n: int, expected: tuple[float, float]):
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-5)


def test_standard_error_and_correlation_of_known_samples():
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.6454972)
    assert standard_error([1.0]) is None
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 1, 1], [2, 4, 6]) is None
