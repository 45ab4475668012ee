"""A deadline, and how long a piece of work takes as far as has been measured."""

import time

_SAFETY = 1.5
"""A piece of work may take this much longer than the slowest of late."""
_SLACK = 0.004
"""Seconds kept for what follows the last piece of work, and for a core that is lent to somebody else."""
_FADE = 0.95


class Pace:
    """How long pieces of work of one size take: the slowest seen, which fades as quicker ones follow."""

    def __init__(self) -> None:
        self._slowest = 0.0

    def add(self, seconds: float) -> None:
        """Note that a piece took so long."""
        self._slowest = max(seconds, _FADE * self._slowest)

    @property
    def seconds(self) -> float:
        """What the next one may take, with room to spare."""
        return _SAFETY * self._slowest + _SLACK


class Deadline:
    """A moment to be done by."""

    def __init__(self, seconds: float) -> None:
        """The moment lies so many seconds from now."""
        self._at = time.perf_counter() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self._at - time.perf_counter()
