"""A deadline, and how long a prediction of some rows takes as far as has been measured."""

import statistics
import time
from collections import deque

_MEMORY = 200
"""Predictions of late from which the next one's time is told."""
_TAIL = 0.004
"""Seconds kept for what follows the last prediction."""


class Deadline:
    """A moment to be done by."""

    def __init__(self, seconds: float) -> None:
        """The moment lies so many seconds from now."""
        self._at = time.perf_counter() + seconds

    def earlier(self, seconds: float) -> "Deadline":
        """A deadline so much sooner."""
        return Deadline(self.left - seconds)

    @property
    def left(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self._at - time.perf_counter()


class Pace:
    """Seconds of a prediction: so many for each, so many more a row, times what the machine's load usually makes of them.

    Now and then a prediction stalls, when its core is lent to somebody else; the longest stall of late may come again.
    """

    def __init__(self) -> None:
        self._fixed = self._row = 0.0
        self._seen: deque[tuple[float, float]] = deque(maxlen=_MEMORY)
        self._load, self._stall = 1.0, 0.0

    def calibrate(self, *, one: float, many: float, rows: int) -> None:
        """Learn from the seconds of a prediction of `one` row and of one of many `rows`."""
        self._row = max(many - one, 0.1 * many) / rows
        self._fixed = max(one - self._row, 0.0)
        self.forget()

    def add(self, seconds: float, rows: int) -> None:
        """Note what a prediction took."""
        if not self._row:
            self._row = seconds / rows
        self._seen.append((seconds, self._expected(rows)))
        self._load = statistics.median(taken / expected for taken, expected in self._seen)
        self._stall = max(taken - self._load * expected for taken, expected in self._seen)

    def forget(self) -> None:
        """Forget what the load was: where no prediction is dared, none can tell that it has passed."""
        self._seen.clear()
        self._load, self._stall = 1.0, 0.0

    def seconds(self, rows: int) -> float:
        """What a prediction and what follows it may take."""
        return self._load * self._expected(rows) + self._stall + _TAIL

    def rows_within(self, seconds: float, most: int) -> int:
        """How many rows can be predicted in that time, at most `most`; one where nothing has been measured."""
        if not self._row:
            return 1 if seconds > 0 else 0
        room = (seconds - self._stall - _TAIL) / self._load - self._fixed
        return max(0, min(most, int(room / self._row)))

    def _expected(self, rows: int) -> float:
        return self._fixed + rows * self._row
