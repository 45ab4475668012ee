"""Decoding video: every frame that decodes, at its own time, or the one that is shown at each instant."""

import math
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vjepa2cli.data.file_faults import (
    explain_unreadable,
    refuse_absent,
    refuse_frames_beyond_end,
    refuse_missing_matroska_bytes,
)
from vjepa2cli.data.orientation import Signs, described, orientation, turned
from vjepa2cli.data.video.pixels import Pixels, resize
from vjepa2cli.data.video.sampling import TIME_TOLERANCE, Standstill, sampled
from vjepa2cli.errors import VideoError

# How the note on frames that are lost in the middle begins.
DAMAGED = "damaged packets passed over"

_FALLBACK_RATE = 25.0
# 8192 x 4352, the largest frame that H.264 and HEVC have a level for. A damaged header may claim any size.
_MAX_PIXELS = 8192 * 4352
# Decoded frames of a video that are held while they are counted: a minute of 320 x 240.
_HELD_BYTES = 208 << 20


@dataclass(frozen=True)
class Clip:
    """Frames of one video: pixels uint8 [F, Y, X, 3] RGB, frames per second, timestamps float64 [F] in seconds, and the file."""

    pixels: Pixels
    fps: float
    timestamps: NDArray[np.float64]
    source: str


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says, after rotation and pixel shape: it may lie about the rate, the duration and the frame count.

    `rotation` (degrees clockwise), `mirrored` (afterwards, left to right) and `pixel_aspect` (width over height) are what is
    applied to its frames.
    """

    height: int
    width: int
    fps: float
    duration: float | None
    codec: str
    declared_frames: int | None
    rotation: int = 0
    mirrored: bool = False
    pixel_aspect: float = 1.0


class VideoFile:
    """An open video: what its header and its first frame say, and its frames, once."""

    def __init__(self, path: Path, container: Any, stream: Any, *, notes: list[str]) -> None:
        self.notes = notes
        self._path, self._container, self._stream = path, container, stream
        self._convert = VideoReformatter()
        decoded = _decoded(path, container, stream, notes=notes)
        first = next(decoded)
        self._decoded = chain([first], decoded)
        self._first_time = first[2].time
        height, width = _display_size(first[2], stream, short_side=None)
        duration = container.duration / 1e6 if container.duration and container.duration > 0 else None
        rotation, mirrored = described(_orientation(first[2]))
        self.info = VideoInfo(
            height,
            width,
            _rate(stream),
            duration,
            str(stream.codec_context.codec.name),
            stream.frames if stream.frames > 0 else None,
            rotation,
            mirrored,
            _pixel_aspect(stream),
        )

    def seek(self, seconds: float) -> None:
        """Go on from the last key frame that is shown `seconds` from the first frame or earlier; frames are numbered from there.

        Raises VideoError where the file's index leads elsewhere.
        """
        if self._first_time is None:
            raise VideoError(f"{self._path}: its frames have no timestamps, so nothing can be found in it by time; re-encode it")
        goal = int((self._first_time + seconds) / self._stream.time_base)
        self._container.seek(goal, stream=self._stream, backward=True)
        decoded = _decoded(self._path, self._container, self._stream, notes=self.notes, first=self._first_time)
        frame = next(decoded)
        if frame[0] > seconds + TIME_TOLERANCE:
            raise VideoError(f"{self._path}: its index leads to {frame[0]:.2f} s instead of {seconds:.2f} s; re-encode it")
        self._decoded = chain([frame], decoded)

    def frames(
        self, *, start: float = 0.0, fps: float | None = None, short_side: int | None = None, longest: float = math.inf
    ) -> Iterator[tuple[float, int, Pixels]]:
        """Yield (seconds from the first frame, number in the file, pixels), as `iterate_frames` does, from `start` seconds on.

        At `fps` no frame is repeated for more than `longest` seconds; where one is shown for longer, the notes say so.
        """
        size: tuple[int, int] | None = None
        coded = (0, 0)
        last = (-1, np.empty(0, np.uint8))
        standstill = Standstill(longest, self.notes)
        for time, index, frame in sampled(self._decoded, start=start, fps=fps, rate=self.info.fps, standstill=standstill):
            if size is None:
                size, coded = _display_size(frame, self._stream, short_side=short_side), (frame.height, frame.width)
            elif coded != (frame.height, frame.width):
                coded = (frame.height, frame.width)
                self.notes.append(f"the frame size changes at frame {index}; later frames are resized to {size[1]}x{size[0]}")
            if last[0] != index:
                last = (index, self._upright(frame, size))
            yield time, index, last[1]

    def numbered(self, wanted: Collection[int], *, short_side: int | None = None) -> Iterator[tuple[int, Pixels]]:
        """Yield (number in the file, pixels) of the frames whose numbers are `wanted`; the others are decoded and not converted.

        It ends with the last one that is wanted, or with the video.
        """
        size: tuple[int, int] | None = None
        last = max(wanted, default=-1)
        for _, index, frame in self._decoded if last >= 0 else ():
            size = size or _display_size(frame, self._stream, short_side=short_side)
            if index in wanted:
                yield index, self._upright(frame, size)
            if index >= last:
                return

    def picked(self, choose: Callable[[int], NDArray[np.int64]], *, short_side: int | None = None) -> Pixels:
        """The frames whose numbers [...] `choose` gives for the number of frames in the file: uint8 [..., Y, X, 3].

        The number of frames is counted, since headers lie: of a short video by decoding it, of a long one by its packets. Where
        that is more than decode, the last frame stands for those that lack.
        """
        held: list[tuple[float, int, Any]] = []
        num_bytes = 0
        for item in self._decoded:
            held.append(item)
            num_bytes += item[2].width * item[2].height * 3 // 2
            if num_bytes > _HELD_BYTES:
                break
        total = len(held) if num_bytes <= _HELD_BYTES else max(len(held), _count_packets(self._path))
        numbers = choose(total)
        self._decoded = chain(held, self._decoded)
        found = dict(self.numbered({*numbers.ravel().tolist(), len(held) - 1}, short_side=short_side))
        latest = found[max(found)]
        return np.stack([found.get(number, latest) for number in numbers.ravel().tolist()]).reshape(*numbers.shape, *latest.shape)

    def _upright(self, frame: Any, size: tuple[int, int]) -> Pixels:
        signs = _orientation(frame)
        # One converter for all frames keeps its tables; a frame's own builds them anew each time.
        pixels: Any = self._convert.reformat(frame, format="rgb24").to_ndarray()
        return turned(resize(pixels, (size[1], size[0]) if signs[1] else size, method="blocks"), signs)


@contextmanager
def open_video(path: str | Path, *, notes: list[str] | None = None) -> Iterator[VideoFile]:
    """Open a video and decode its first frame; raises VideoError where that is not possible.

    What has to be mended while decoding (damaged packets, missing timestamps, a change of size) is appended to `notes`.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        yield VideoFile(path, container, stream, notes=[] if notes is None else notes)


def probe_video(path: str | Path) -> VideoInfo:
    """Decode the first frame of a video and read its header; raises VideoError where that is not possible."""
    with open_video(path) as video:
        return video.info


def iterate_frames(
    path: str | Path, *, fps: float | None = None, short_side: int | None = None, notes: list[str] | None = None
) -> Generator[tuple[float, int, Pixels], None, None]:
    """Yield (seconds from the first frame, number in the file, pixels uint8 [Y, X, 3]), one frame at a time.

    Every frame that decodes, or at `fps` the one that is shown at each instant, so frames repeat where the video is slower.
    Frames are resized as they come so that the shorter side is `short_side`; all have the first one's size. What had to be
    mended is appended to `notes`. Raises VideoError where nothing decodes and, after the last whole frame, where the file is
    cut short.
    """
    with open_video(path, notes=notes) as video:
        yield from video.frames(fps=fps, short_side=short_side)


def read_clip(
    path: str | Path,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start: float = 0.0,
    short_side: int | None = None,
) -> Clip:
    """Read frames of a video from `start` seconds on: every frame, or at `fps` the frame that is shown at each instant.

    `num_frames` None reads to the end. Where the video is slower than `fps`, frames repeat. `short_side` resizes while decoding.
    Raises VideoError for what cannot be decoded and for a video that ends before `num_frames` frames.
    """
    for name, value in (("num_frames", num_frames), ("fps", fps), ("short_side", short_side)):
        if value is not None and not value > 0:
            raise VideoError(f"{path}: {name}: {value} is not positive")
    with open_video(path) as video:
        chosen = list(islice(video.frames(start=start, fps=fps, short_side=short_side), num_frames))
        declared = video.info.fps
    if not chosen or (num_frames is not None and len(chosen) < num_frames):
        rate = "its own rate" if fps is None else f"{fps:g} fps"
        raise VideoError(
            f"{path}: the video is too short: it has {len(chosen)} of {num_frames or 'the'} frames from {start:g} s on "
            f"at {rate}; ask for fewer frames, a higher fps or an earlier start"
        )
    timestamps = np.array([time for time, _, _ in chosen], np.float64)
    if fps is None:
        span = timestamps[-1] - timestamps[0]
        fps = (len(chosen) - 1) / span if span > 0 else declared
    return Clip(np.stack([pixels for _, _, pixels in chosen]), float(fps), timestamps, str(path))


def _count_packets(path: Path) -> int:
    with _opened(path) as (container, stream):
        return sum(1 for packet in _packets(container, stream) if packet.size)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A container and its first moving video stream, decoded by one thread so that damaged streams decode the same everywhere."""
    refuse_absent(path)
    try:
        container = av.open(f"file:{path}", metadata_errors="ignore")
    except PermissionError:
        raise VideoError(f"{path}: no permission to read it; change its mode or owner") from None
    except (av.error.FFmpegError, ValueError):
        raise VideoError(f"{path}: {explain_unreadable(path)}") from None
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
            raise VideoError(f"{path}: no video stream (streams: {kinds}); give a file that holds pictures")
        if streams[0].codec_context is None:
            raise VideoError(f"{path}: its video codec is unknown to this FFmpeg; re-encode it to H.264 mp4")
        streams[0].codec_context.thread_count = 1
        streams[0].codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        if "mp4" in container.format.name and streams[0].frames > 0:
            refuse_frames_beyond_end(path, [entry.pos + entry.size for entry in streams[0].index_entries])
        elif "matroska" in container.format.name:
            refuse_missing_matroska_bytes(path)
        yield container, streams[0]


def _decoded(
    path: Path, container: Any, stream: Any, *, notes: list[str], first: float | None = None
) -> Iterator[tuple[float, int, Any]]:
    """Yield (seconds from the first frame, index, decoded frame), passing over damaged packets; timestamps always increase.

    `first` is the first frame's own time, where decoding does not begin there.
    """
    rate = _rate(stream)
    index = damaged = mended = 0
    previous = None
    last_is_corrupt = False
    for packet in _packets(container, stream):
        last_is_corrupt = packet.is_corrupt if packet.size else last_is_corrupt
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, MemoryError):
            damaged += 1
            continue
        for frame in frames:
            first = frame.time if first is None else first
            time = frame.time - first if frame.time is not None and first is not None else None
            if previous is not None and (time is None or time <= previous):
                time, mended = previous + 1 / rate, mended + 1
            previous = time or 0.0
            yield previous, index, frame
            index += 1
    if not index:
        why = "every packet is damaged" if damaged else "it holds no frames"
        raise VideoError(f"{path}: no frame decodes: {why}, or it is encrypted; copy it again or re-encode it to H.264 mp4")
    if last_is_corrupt:
        raise VideoError(f"{path}: the file is cut short after {index} frames; copy or download it again")
    if damaged:
        notes.append(f"{DAMAGED}: {damaged}")
    if mended:
        notes.append(f"missing or disordered timestamps set from the rate of {rate:.4g} fps: {mended}")


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        # The container breaks off here; the frames so far stand, and a cut is told from its last packet.
        return


def _rate(stream: Any) -> float:
    """Frames per second by the header; Matroska and FLV without a rate claim 1000, where the guess from the packets is better."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < float(rate) <= 480:
            return float(rate)
    return _FALLBACK_RATE


def _orientation(frame: Any) -> Signs:
    # A frame and its own `side_data` hold each other, so that hundreds of frames would wait for the garbage collector.
    return orientation(frame, lambda one: list(SideDataContainer(one)))  # type: ignore[call-arg]


def _pixel_aspect(stream: Any) -> float:
    """Width over height of a pixel, or 1 where the header is silent or talks nonsense."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if math.isfinite(aspect) and 0.1 < aspect < 10 else 1.0


def _display_size(frame: Any, stream: Any, *, short_side: int | None) -> tuple[int, int]:
    """(height, width) of the upright picture with square pixels."""
    height, width = frame.height, max(1, round(frame.width * _pixel_aspect(stream)))
    if _orientation(frame)[1]:
        height, width = width, height
    scale = short_side / min(height, width) if short_side else 1
    return max(1, round(height * scale)), max(1, round(width * scale))
