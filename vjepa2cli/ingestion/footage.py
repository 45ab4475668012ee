"""The pictures of one camera of an episode, one after the other, cut and resized as they are stored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from vjepa2cli.data.video import Pixels, VideoInfo, decode_image, open_video, resize
from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.episode import Footage, Picture
from vjepa2cli.settings.robot import Box, CameraConfig

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Reel:
    """Frames in order, and what a video's header says, of pictures that come from one."""

    frames: Iterator[Pixels]
    info: VideoInfo | None


@contextmanager
def opened(footage: Footage, camera: CameraConfig | None, *, short_side: int, notes: list[str]) -> Iterator[Reel]:
    """Open footage; its frames uint8 [Y, X, 3] come cropped, the shorter side `short_side`. What is mended goes to `notes`."""
    crop = camera.crop if camera is not None else _WHOLE
    if footage.pictures is not None:
        bgr = camera is not None and camera.bgr
        pixels = (_pixels(picture, bgr=bgr, where=str(footage.path)) for picture in footage.pictures())
        yield Reel((_fitted(frame, crop, short_side) for frame in pixels), None)
        return
    with open_video(footage.path, notes=notes) as video:
        start, stop = (0.0, float("inf")) if footage.span is None else footage.span
        # Half a frame of slack: a stretch begins where the one before it ends, and times are rounded.
        slack = 0.5 / video.info.fps if footage.span is not None else 0.0
        if start > 0:
            video.seek(max(0.0, start - slack))
        decoded = video.frames(short_side=short_side if crop == _WHOLE else None)
        shown = _between(decoded, start - slack, stop - slack)
        yield Reel(shown if crop == _WHOLE else (_fitted(frame, crop, short_side) for frame in shown), video.info)


def _between(decoded: Iterator[tuple[float, int, Pixels]], start: float, stop: float) -> Iterator[Pixels]:
    for time, _, pixels in decoded:
        if time >= stop:
            return
        if time >= start:
            yield pixels


def _pixels(picture: Picture, *, bgr: bool, where: str) -> Pixels:
    frame = decode_image(picture, where=where) if isinstance(picture, bytes) else picture
    if frame is None:
        raise RecordingError(f"{where}: a picture is no image that can be decoded; write JPEG, PNG or plain pixels")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise RecordingError(f"{where}: pictures of {frame.dtype} {list(frame.shape)}; uint8 [Y, X, 3] is needed")
    return np.ascontiguousarray(frame[..., ::-1]) if bgr else frame


def _fitted(frame: Pixels, crop: Box, short_side: int) -> Pixels:
    height, width = frame.shape[:2]
    left, right = (round(edge * width) for edge in crop[::2])
    top, bottom = (round(edge * height) for edge in crop[1::2])
    frame = np.ascontiguousarray(frame[top : max(bottom, top + 1), left : max(right, left + 1)])
    scale = short_side / min(frame.shape[:2])
    size = (max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale)))
    return resize(frame, size, method="blocks")
