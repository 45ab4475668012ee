"""A deadline, and how long a prediction of some rows takes as far as has been measured."""

import statistics
import time
from collections import deque

_MEMORY = 400
"""Predictions of late from which the next one's time is told: one in so many is longer than all of them."""
_PATIENCE = 4
"""Searches in vain, one after the other, before more than one of them is let go at a time."""
_TAIL = 0.004
"""Seconds kept for what follows the last prediction where nothing stalls."""


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

    Now and then something stalls, when its core is lent to somebody else; the longest stall of late may come again.
    """

    def __init__(self) -> None:
        self._fixed = self._row = 0.0
        self._seen: deque[tuple[float, float]] = deque(maxlen=_MEMORY)
        self._tails: deque[float] = deque(maxlen=_MEMORY)
        self._in_vain = 0
        self._load, self._stall = 1.0, 0.0

    def calibrate(self, *, one: float, many: float, rows: int) -> None:
        """Learn from the seconds of a prediction of `one` row and of one of many `rows`, both undisturbed."""
        self._row = max(many - one, 0.1 * many) / rows
        self._fixed = max(one - self._row, 0.0)
        self._seen.clear()
        self._tails.clear()
        self._load, self._stall = 1.0, 0.0

    def add(self, seconds: float, rows: int) -> None:
        """Note what a prediction took, and what came between it and the one before."""
        if not self._row:
            self._row = seconds / rows
        self._seen.append((seconds, self._expected(rows)))
        self._learn()

    def add_tail(self, seconds: float) -> None:
        """Note what followed the last prediction of a search; the next search in vain is the first one."""
        self._in_vain = 0
        self._tails.append(seconds)
        self._learn()

    def ease(self) -> None:
        """Let the longest times go: where no prediction is dared, none can tell that the load has passed.

        One a time at first, then twice as many each time, until a search dares again. To forget more at once would be to dare
        too much under a load that lasts.
        """
        for _ in range(min(1 << max(0, self._in_vain - _PATIENCE), _MEMORY)):
            if self._tails and max(self._tails) - _TAIL >= self._stall:
                self._tails.remove(max(self._tails))
            elif self._seen:
                self._seen.remove(max(self._seen, key=lambda each: each[0] - self._load * each[1]))
            self._learn()
        self._in_vain += 1

    def seconds(self, rows: int) -> float:
        """What a prediction and what follows it may take."""
        return self._load * self._expected(rows) + self._stall + _TAIL

    def rows_within(self, seconds: float, most: int) -> int:
        """How many rows can be predicted in that time, at most `most`; one where nothing has been measured."""
        if not self._row:
            return 1 if seconds > 0 else 0
        room = (seconds - self._stall - _TAIL) / self._load - self._fixed
        return max(0, min(most, int(room / self._row)))

    def _learn(self) -> None:
        self._load = statistics.median(taken / expected for taken, expected in self._seen) if self._seen else 1.0
        stalls = [taken - self._load * expected for taken, expected in self._seen]
        self._stall = max([0.0, *stalls, *(tail - _TAIL for tail in self._tails)])

    def _expected(self, rows: int) -> float:
        return self._fixed + rows * self._row
