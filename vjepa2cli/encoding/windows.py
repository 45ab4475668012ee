"""Frames into windows: the clips of one length that cover a whole input, one after the other or overlapping."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vjepa2cli.encoding.sources import Source, TimedFrame
from vjepa2cli.settings import EncodeConfig


@dataclass(frozen=True)
class Window:
    """Frames that go through the encoder together, from number `start` of the input on; `padding` copies of the last one end it.

    Of its time steps the first `skip` lie in earlier windows too.
    """

    frames: Sequence[TimedFrame]
    start: int
    skip: int
    padding: int


class WindowCutter:
    """Cuts windows of `num_frames` that begin every `stride` frames out of a stream.

    The last window is moved back to be full, so every frame is in one, unless the stride leaves frames out. Where frames lack to
    a whole tubelet the last one is repeated; an input shorter than a window makes a shorter one.
    """

    def __init__(self, *, num_frames: int, stride: int, tubelet_size: int) -> None:
        self.count = 0
        self._length, self._stride, self._tubelet = num_frames, stride, tubelet_size
        self._held: deque[TimedFrame] = deque(maxlen=num_frames)
        self._next_start = self._end = 0

    def push(self, frame: TimedFrame) -> Window | None:
        """Take the next frame; returns the window that it completes."""
        self._held.append(frame)
        self.count += 1
        if self.count != self._next_start + self._length:
            return None
        window = Window(list(self._held), self._next_start, self._num_known(self._next_start), 0)
        self._end = self.count
        self._next_start += self._stride
        return window

    def finish(self) -> Window | None:
        """The window of the frames that are in none yet, after the last frame."""
        if self.count in (0, self._end) or self._next_start >= self.count:
            return None
        padding = -self.count % self._tubelet
        frames = [*self._held, *[self._held[-1]] * padding][-self._length :]
        start = self.count + padding - len(frames)
        return Window(frames, start, self._num_known(start), padding)

    def _num_known(self, start: int) -> int:
        return max(0, self._end - start) // self._tubelet


def windows(frames: Iterator[TimedFrame], *, num_frames: int, tubelet_size: int, stride: int | None = None) -> Iterator[Window]:
    """All windows of a stream, as `WindowCutter` cuts them; without a `stride` they follow each other."""
    cutter = WindowCutter(num_frames=num_frames, stride=stride or num_frames, tubelet_size=tubelet_size)
    for frame in frames:
        if (window := cutter.push(frame)) is not None:
            yield window
    if (window := cutter.finish()) is not None:
        yield window


def sampled(source: Source, config: EncodeConfig) -> Iterator[TimedFrame]:
    """The frames of an input at `config.fps`, or all of them."""
    return source.open(fps=config.fps)
