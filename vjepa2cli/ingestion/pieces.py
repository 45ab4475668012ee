"""Which frames of a video make up which entry: the parts that a table names, and the shots of each."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vjepa2cli.data.shots import mark_cuts
from vjepa2cli.data.video import Pixels, VideoFile
from vjepa2cli.recordings.sources import Part, Source
from vjepa2cli.settings import IngestConfig

# From here on FFmpeg, too, takes a jump in the timestamps of a transport stream for a break and not for a pause.
_LONGEST_STANDSTILL = 10.0

Frame = tuple[float, int, Pixels]


@dataclass(frozen=True)
class Piece:
    """What becomes one entry: a part of a source, or a shot of it."""

    name: str
    part: Part


def part_name(source: Source, part: Part) -> str:
    """The source's name, with the stretch where that is not all of it."""
    return source.name if part.span.is_whole else f"{source.name}@{part.span}"


def pieces(video: VideoFile, source: Source, config: IngestConfig, *, cuts: list[float]) -> Iterator[tuple[Piece, Frame]]:
    """Each frame that is to be stored, with the piece it belongs to; decodes no further than it must.

    Where shots are looked for, the seconds at which one begins are appended to `cuts`.
    """
    frames = video.frames(fps=config.fps, short_side=config.short_side, longest=_LONGEST_STANDSTILL)
    marked = (
        ((False, frame) for frame in frames) if config.shots == "keep" else mark_cuts(frames, fps=config.fps or video.info.fps)
    )
    waiting = deque(sorted(source.parts, key=lambda part: part.span.start))
    piece: Piece | None = None
    shot = taken = 0
    for is_cut, (time, index, pixels) in marked:
        while waiting and waiting[0].span.ends_before(time, index):
            waiting.popleft()
        if not waiting:
            return
        part = waiting[0]
        if part.span.begins_after(time, index):
            continue
        if piece is None or piece.part is not part:
            piece, shot, taken = _piece(source, part, 1, config), 1, 0
        elif is_cut:
            cuts.append(time)
            if config.shots == "split":
                shot, taken = shot + 1, 0
                piece = _piece(source, part, shot, config)
        taken += 1
        if config.max_frames is None or taken <= config.max_frames:
            yield piece, (time, index, pixels)
        elif len(waiting) == 1 and config.shots != "split":
            return


def _piece(source: Source, part: Part, shot: int, config: IngestConfig) -> Piece:
    name = part_name(source, part)
    return Piece(f"{name}#shot{shot:03d}" if config.shots == "split" else name, part)


def too_short(num_frames: int, config: IngestConfig) -> str | None:
    """Why so many frames are no entry, if they are not."""
    if num_frames >= config.min_frames:
        return None
    at = "" if config.fps is None else f" at {config.fps:g} fps"
    held = "1 frame" if num_frames == 1 else f"{num_frames} frames"
    return f"holds {held}{at}, fewer than min_frames {config.min_frames}; lower that"


def measured_rate(times: Sequence[float], declared: float) -> float:
    """Frames a second: the header's word where the timestamps bear it out to a hundredth, else their mean."""
    span = times[-1] - times[0]
    if span <= 0:
        return declared
    measured = (len(times) - 1) / span
    return declared if abs(measured / declared - 1) < 0.01 else measured
