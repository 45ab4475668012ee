"""Which decoded frame is shown at each instant, and for how long one may stand still."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

# Matroska and FLV round timestamps to whole milliseconds.
TIME_TOLERANCE = 1e-3

Decoded = tuple[float, int, Any]


@dataclass
class Standstill:
    """For how many seconds a frame is repeated at most; where that is not all of its time, `notes` gets one line that says so."""

    longest: float = math.inf
    notes: list[str] = field(default_factory=list)
    _found: list[tuple[float, float]] = field(default_factory=list, init=False)

    def cut(self, time: float, seconds: float) -> None:
        """Note that the frame at `time` is shown for so many seconds, of which `longest` are kept."""
        if self._found:
            self.notes.remove(self._text())
        self._found.append((seconds, time))
        self.notes.append(self._text())

    def _text(self) -> str:
        seconds, time = max(self._found)
        text = f"one frame is shown for {seconds:.6g} s from {time:.2f} s on, of which {self.longest:g} s are kept"
        more = len(self._found) - 1
        return text if not more else f"{text}; {more} shorter standstill{'s' if more > 1 else ''} likewise"


def sampled(
    frames: Iterator[Decoded], *, start: float, fps: float | None, rate: float, standstill: Standstill
) -> Iterator[Decoded]:
    """Each frame from `start` on, or at `fps` the one that is shown at each instant, the last one for 1 / rate seconds.

    A frame that is shown for longer than `standstill` allows is passed over for the rest of its time: the clock of a damaged
    file jumps by hours, and a camera that was paused would fill a store with one picture.
    """
    if fps is None:
        yield from (item for item in frames if item[0] >= start - TIME_TOLERANCE)
        return
    shown: Decoded | None = None
    step = 0
    for item in frames:
        if shown is not None:
            until = min(item[0], shown[0] + standstill.longest) - TIME_TOLERANCE
            while start + step / fps < until:
                yield shown
                step += 1
            if (later := math.ceil((item[0] - TIME_TOLERANCE - start) * fps)) > step:
                standstill.cut(shown[0], item[0] - shown[0])
                step = later
        shown = item
    until = 0.0 if shown is None else shown[0] + min(1 / rate, standstill.longest) - TIME_TOLERANCE
    while shown is not None and start + step / fps < until:
        yield shown
        step += 1
