"""Shares with their intervals, and whether one is above another: as careful in words as in numbers."""

import math
from dataclasses import dataclass

from vjepa2cli.artifacts.statistics import wilson_interval


@dataclass(frozen=True)
class Share:
    """`successes` of `total`, with a 95 % interval."""

    successes: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, total: int) -> "Share":
        """A share with its Wilson interval."""
        return cls(successes, total, *wilson_interval(successes, total))

    @property
    def rate(self) -> float:
        """Successes over total, 0 where nothing was tried."""
        return self.successes / self.total if self.total else 0.0

    def interval(self) -> str:
        """The interval in per cent: `84–98 %`."""
        return f"{self.low * 100:.0f}–{self.high * 100:.0f} %"


@dataclass(frozen=True)
class Difference:
    """How far one share is above another, with a 95 % interval, in parts of one."""

    gap: float
    low: float
    high: float
    overlapping: bool

    @property
    def verdict(self) -> str:
        """`above` (intervals apart), `suggestive` (the difference excludes 0, the intervals overlap), `none` or `below`."""
        if self.low > 0:
            return "suggestive" if self.overlapping else "above"
        return "below" if self.high < 0 else "none"

    def words(self) -> str:
        """As in `+6 points, 95 % interval −5 to +18`."""
        return f"{signed(self.gap * 100)} points, 95 % interval {signed(self.low * 100)} to {signed(self.high * 100)}"


def difference(first: Share, second: Share) -> Difference:
    """How far `first` is above `second`, taken as independent samples.

    Source: R. G. Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    gap = first.rate - second.rate
    low = gap - math.hypot(first.rate - first.low, second.high - second.rate)
    high = gap + math.hypot(first.high - first.rate, second.rate - second.low)
    return Difference(gap, low, high, overlapping=first.low <= second.high and second.low <= first.high)


def minus(number: float, digits: int) -> str:
    """A number with a minus sign, where it has one, that is no hyphen."""
    return f"{number:.{digits}f}".replace("-", "−")


def signed(number: float) -> str:
    """A whole number with its sign, as `+6`, `−5` or `0`."""
    rounded = round(number)
    return f"+{rounded}" if rounded > 0 else f"−{-rounded}" if rounded < 0 else "0"
