"""Stretches of a video, in its frames or in seconds from its first one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError

# Half the shortest frame period of interest: a frame that is shown at 2.0 s may be stamped 1.9999.
_TOLERANCE = 1e-3


@dataclass(frozen=True, order=True)
class Span:
    """From `start` up to but without `stop`, or to the end where that is None."""

    start: float = 0
    stop: float | None = None
    unit: Literal["frames", "seconds"] = "frames"

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start == 0 and self.stop is None

    def __str__(self) -> str:
        if self.unit == "frames":
            return f"{self.start:g}-{'' if self.stop is None else f'{self.stop:g}'}"
        return f"{self.start:g}s-{'' if self.stop is None else f'{self.stop:g}s'}"

    def begins_after(self, time: float, index: int) -> bool:
        """Whether a frame, shown at `time` seconds, comes before this stretch."""
        return index < self.start if self.unit == "frames" else time < self.start - _TOLERANCE

    def ends_before(self, time: float, index: int) -> bool:
        """Whether a frame comes after this stretch."""
        if self.stop is None:
            return False
        return index >= self.stop if self.unit == "frames" else time >= self.stop - _TOLERANCE


WHOLE = Span()


def joined(spans: Iterable[Span], *, where: str) -> list[Span]:
    """The same stretches in order, those that overlap or touch as one; raises InputError where frames and seconds are mixed."""
    ordered = sorted(set(spans), key=lambda span: (span.start, span.stop is not None, span.stop or 0))
    if len({span.unit for span in ordered if not span.is_whole}) > 1:
        raise InputError(f"{where}: some rows give start and end, others start_frame; give one kind for each video")
    out: list[Span] = []
    for span in ordered:
        last = out[-1] if out else None
        if last is not None and (last.stop is None or span.start <= last.stop):
            stop = None if last.stop is None or span.stop is None else max(last.stop, span.stop)
            out[-1] = Span(last.start, stop, last.unit)
        else:
            out.append(span)
    return out


def stored_frames(
    span: Span, *, indices: NDArray[np.int64], timestamps: NDArray[np.float64], fps: float
) -> tuple[int, int] | None:
    """First stored frame and their number within a stretch, or None where the stretch is not all there.

    `indices` and `timestamps` are those of the stored frames in their source. The last frame is shown as long as the one before
    it, and at a lower rate a stretch may begin between two stored frames.
    """
    if span.unit == "frames":
        places, slack = indices.astype(np.float64), 0.0
        period = max(1.0, float(indices[-1] - indices[-2]) if len(indices) > 1 else 1.0)
    else:
        places, slack, period = timestamps, _TOLERANCE, 1 / fps
    end = places[-1] + period
    stop = end if span.stop is None else span.stop
    if span.start <= places[0] - period - slack or stop > end + slack:
        return None
    first, last = (int(at) for at in np.searchsorted(places, [span.start - slack, stop - slack]))
    return (first, last - first) if last > first else None
