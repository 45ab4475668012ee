"""Frames into windows: a clock that samples them, and the cover of a whole video by clips of one length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vjepa2cli.encoding.sources import Source, TimedFrame
from vjepa2cli.settings import EncodeConfig


@dataclass(frozen=True)
class Window:
    """Frames that go through the encoder together, of whose time steps the first `skip` are known already."""

    frames: Sequence[TimedFrame]
    skip: int
    padding: int


def windows(frames: Iterator[TimedFrame], *, num_frames: int, tubelet_size: int) -> Iterator[Window]:
    """Cover frames by windows of `num_frames` without overlap; the last one is moved back to be full, and says what to skip.

    Where frames lack to a whole tubelet the last frame is repeated; an input shorter than a window makes a shorter one.
    """
    before: list[TimedFrame] = []
    held: list[TimedFrame] = []
    for frame in frames:
        held.append(frame)
        if len(held) == num_frames:
            yield Window(held, 0, 0)
            before, held = held, []
    if held:
        padding = -len(held) % tubelet_size
        held += [held[-1]] * padding
        context = before[len(held) :]
        yield Window(context + held, len(context) // tubelet_size, padding)


def at_rate(frames: Iterator[TimedFrame], *, fps: float, rate: float) -> Iterator[TimedFrame]:
    """At each instant k / fps the frame that is shown then; `rate` is that of the frames and says how long the last one stays."""
    tolerance = 1e-3
    shown: TimedFrame | None = None
    step = 0
    for frame in frames:
        while shown is not None and step / fps < frame[0] - tolerance:
            yield shown
            step += 1
        shown = frame
    while shown is not None and step / fps < shown[0] + 1 / rate - tolerance:
        yield shown
        step += 1


def sampled(source: Source, config: EncodeConfig) -> Iterator[TimedFrame]:
    """The frames of an input at `config.fps`, or all of them."""
    if config.fps is None or source.still:
        return source.open()
    return at_rate(source.open(), fps=config.fps, rate=source.fps())
