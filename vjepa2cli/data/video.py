"""The only decoder: video and images in, upright RGB pixels with exact timestamps out, and the writer of H.264.

PyAV decodes, because it reads AV1 and gives every frame's own timestamp; OpenCV resizes and reads images. Rotation and
mirroring by metadata, and pixels that are not square, are applied here, so nobody downstream meets them.
"""

import errno
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.file_faults import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    explain_unreadable,
    is_cut_short_image,
    refuse_absent,
    refuse_frames_beyond_end,
    refuse_missing_matroska_bytes,
)
from vjepa2cli.data.orientation import orientation, turned
from vjepa2cli.errors import VideoError
from vjepa2cli.files import replaced_atomically

Pixels = NDArray[np.uint8]

# How the note on frames that are lost in the middle begins.
DAMAGED = "damaged packets passed over"

_FALLBACK_RATE = 25.0
# Matroska and FLV round timestamps to whole milliseconds.
_TIME_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Clip:
    """Frames of one video: pixels uint8 [F, Y, X, 3] RGB, frames per second, timestamps float64 [F] in seconds, and the file."""

    pixels: Pixels
    fps: float
    timestamps: NDArray[np.float64]
    source: str


@dataclass(frozen=True)
class VideoInfo:
    """What a file's header says, after rotation and pixel shape: it may lie about the rate, the duration and the frame count."""

    height: int
    width: int
    fps: float
    duration: float | None
    codec: str
    declared_frames: int | None


def probe_video(path: str | Path) -> VideoInfo:
    """Decode the first frame of a video and read its header; raises VideoError where that is not possible."""
    with _opened(Path(path)) as (container, stream):
        frame = next(_decoded(Path(path), container, stream, notes=[]))[2]
        height, width = _display_size(frame, stream, short_side=None)
        duration = container.duration / 1e6 if container.duration and container.duration > 0 else None
        codec = str(stream.codec_context.codec.name)
        return VideoInfo(height, width, _rate(stream), duration, codec, stream.frames if stream.frames > 0 else None)


def iterate_frames(
    path: str | Path, *, fps: float | None = None, short_side: int | None = None, notes: list[str] | None = None
) -> Generator[tuple[float, int, Pixels], None, None]:
    """Yield (seconds from the first frame, number in the file, pixels uint8 [Y, X, 3]), one frame at a time.

    Every frame that decodes, or at `fps` the one that is shown at each instant, so frames repeat where the video is slower.
    Frames are resized as they come so that the shorter side is `short_side`; all have the first one's size. What had to be
    mended (damaged packets, missing timestamps, a change of size) is appended to `notes`. Raises VideoError where nothing
    decodes and, after the last whole frame, where the file is cut short.
    """
    return _frames(Path(path), start=0.0, fps=fps, short_side=short_side, notes=[] if notes is None else notes)


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
    frames = _frames(Path(path), start=start, fps=fps, short_side=short_side, notes=[])
    with closing(frames):
        chosen = list(islice(frames, num_frames))
    if not chosen or (num_frames is not None and len(chosen) < num_frames):
        rate = "its own rate" if fps is None else f"{fps:g} fps"
        raise VideoError(
            f"{path}: the video is too short: it has {len(chosen)} of {num_frames or 'the'} frames from {start:g} s on "
            f"at {rate}; ask for fewer frames, a higher fps or an earlier start"
        )
    timestamps = np.array([time for time, _, _ in chosen], np.float64)
    if fps is None:
        span = timestamps[-1] - timestamps[0]
        fps = (len(chosen) - 1) / span if span > 0 else probe_video(path).fps
    return Clip(np.stack([pixels for _, _, pixels in chosen]), float(fps), timestamps, str(path))


def use_one_thread() -> None:
    """Keep OpenCV to one thread in this process, for a process that has siblings on the other cores."""
    cv2.setNumThreads(1)


def read_image(path: str | Path) -> Pixels:
    """Read an image file as uint8 [Y, X, 3] RGB, upright by its EXIF; raises VideoError where it is no image or is cut short."""
    path = Path(path)
    refuse_absent(path)
    data = path.read_bytes()
    if is_cut_short_image(data):
        raise VideoError(f"{path}: the image is cut short; copy or download it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is not None:
        rgb: Pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return rgb
    if path.suffix.lower() in IMAGE_SUFFIXES and data[4:8] == b"ftyp":
        return next(iterate_frames(path))[2]
    if path.suffix.lower() in VIDEO_SUFFIXES and data:
        raise VideoError(f"{path}: a video where an image is needed; save one frame of it as .png")
    raise VideoError(f"{path}: not an image ({explain_unreadable(path).partition(';')[0]}); give a .png or .jpg")


def write_image(path: str | Path, rgb: Pixels) -> None:
    """Write uint8 [Y, X, 3] RGB as .png or .jpg by the name's suffix, whole or not at all."""
    path = Path(path)
    _check_pixels(rgb, ndim=3)
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise VideoError(f"{path}: images are written as .png or .jpg; choose one of these suffixes")
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with replaced_atomically(path) as partial:
        partial.write_bytes(data.tobytes())


def write_video(path: str | Path, frames: Iterable[Pixels], *, fps: float) -> None:
    """Write frames, each uint8 [Y, X, 3] RGB with even sides, as H.264 mp4 at `fps`, whole or not at all.

    One thread and fixed settings: the same frames give the same bytes. Raises VideoError for odd sides, a change of size or no
    frames, and OSError where the disk is full.
    """
    path = Path(path)
    with replaced_atomically(path) as partial:
        try:
            _encode(path, partial, frames, fps)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) or error.errno == errno.ENOSPC:
                raise OSError(error.errno, error.strerror, str(path)) from None
            raise VideoError(f"{path}: cannot encode H.264: {error.strerror}") from None


def resize(frames: Pixels, size: tuple[int, int], *, method: Literal["area", "bilinear"] = "area") -> Pixels:
    """Resize uint8 [..., Y, X, 3] to `size` (height, width).

    "area" averages where it shrinks and is bilinear where it grows; "bilinear" never averages, as the released transforms do.
    """
    height, width = size
    if frames.shape[-3:-1] == (height, width):
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    shrinks = height <= flat.shape[1] and width <= flat.shape[2]
    how = cv2.INTER_AREA if method == "area" and shrinks else cv2.INTER_LINEAR
    out = np.empty((len(flat), height, width, 3), np.uint8)
    for index, frame in enumerate(flat):
        cv2.resize(frame, (width, height), dst=out[index], interpolation=how)
    return out.reshape(*frames.shape[:-3], height, width, 3)


def _check_pixels(pixels: Pixels, *, ndim: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != ndim or pixels.shape[-1] != 3:
        raise VideoError(f"pixels: {pixels.dtype} {list(pixels.shape)} is not uint8 with {ndim} axes, the last of them RGB")


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
        if "mp4" in container.format.name and streams[0].frames > 0:
            refuse_frames_beyond_end(path, [entry.pos + entry.size for entry in streams[0].index_entries])
        elif "matroska" in container.format.name:
            refuse_missing_matroska_bytes(path)
        yield container, streams[0]


def _decoded(path: Path, container: Any, stream: Any, *, notes: list[str]) -> Iterator[tuple[float, int, Any]]:
    """Yield (seconds from the first frame, index, decoded frame), passing over damaged packets; timestamps always increase."""
    rate = _rate(stream)
    index = damaged = mended = 0
    first = previous = None
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


def _frames(
    path: Path, *, start: float, fps: float | None, short_side: int | None, notes: list[str]
) -> Generator[tuple[float, int, Pixels], None, None]:
    with _opened(path) as (container, stream):
        size: tuple[int, int] | None = None
        coded = (0, 0)
        last = (-1, np.empty(0, np.uint8))
        decoded = _decoded(path, container, stream, notes=notes)
        for time, index, frame in _sampled(decoded, start=start, fps=fps, rate=_rate(stream)):
            if size is None:
                size, coded = _display_size(frame, stream, short_side=short_side), (frame.height, frame.width)
            elif coded != (frame.height, frame.width):
                coded = (frame.height, frame.width)
                notes.append(f"the frame size changes at frame {index}; later frames are resized to {size[1]}x{size[0]}")
            if last[0] != index:
                last = (index, _upright(frame, size))
            yield time, index, last[1]


def _sampled(
    frames: Iterator[tuple[float, int, Any]], *, start: float, fps: float | None, rate: float
) -> Iterator[tuple[float, int, Any]]:
    """Each frame from `start` on, or at `fps` the one that is shown at each instant, the last one for 1 / rate seconds."""
    if fps is None:
        yield from (item for item in frames if item[0] >= start - _TIME_TOLERANCE)
        return
    shown: tuple[float, int, Any] | None = None
    step = 0
    for item in frames:
        while shown is not None and start + step / fps < item[0] - _TIME_TOLERANCE:
            yield shown
            step += 1
        shown = item
    while shown is not None and start + step / fps < shown[0] + 1 / rate - _TIME_TOLERANCE:
        yield shown
        step += 1


def _rate(stream: Any) -> float:
    """Frames per second by the header; Matroska and FLV without a rate claim 1000, where the guess from the packets is better."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < float(rate) <= 480:
            return float(rate)
    return _FALLBACK_RATE


def _display_size(frame: Any, stream: Any, *, short_side: int | None) -> tuple[int, int]:
    """(height, width) of the upright picture with square pixels."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width = max(1, round(frame.width * aspect)) if math.isfinite(aspect) and 0.1 < aspect < 10 else frame.width
    height = frame.height
    if orientation(frame)[1]:
        height, width = width, height
    scale = short_side / min(height, width) if short_side else 1
    return max(1, round(height * scale)), max(1, round(width * scale))


def _upright(frame: Any, size: tuple[int, int]) -> Pixels:
    signs = orientation(frame)
    pixels: Pixels = frame.to_ndarray(format="rgb24")
    return turned(resize(pixels, (size[1], size[0]) if signs[1] else size), signs)


def _encode(path: Path, partial: Path, frames: Iterable[Pixels], fps: float) -> None:
    rate = round(fps * 1000)
    size: tuple[int, ...] | None = None
    with av.open(str(partial), "w", format="mp4") as container:
        # With its macroblock tree x264 gives other bytes from run to run on small frames, even on one thread.
        options = {"crf": "18", "preset": "fast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(rate, 1000), options=options)
        stream.thread_count = 1
        stream.pix_fmt = "yuv420p"
        for index, pixels in enumerate(frames):
            _check_pixels(pixels, ndim=3)
            if size is None:
                size = pixels.shape
                if size[0] % 2 or size[1] % 2:
                    raise VideoError(f"{path}: frames of {size[1]}x{size[0]}: H.264 needs even sides; crop or pad by one pixel")
                stream.height, stream.width = size[:2]
            if pixels.shape != size:
                raise VideoError(
                    f"{path}: frame {index} has shape {list(pixels.shape)}, the first has {list(size)}; give one size"
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        if size is None:
            raise VideoError(f"{path}: there is no frame to write; a video needs at least one")
        container.mux(stream.encode(None))
