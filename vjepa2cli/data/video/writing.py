"""The writer of H.264 mp4: the same frames give the same bytes."""

import errno
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vjepa2cli.data.video.pixels import Pixels, check_pixels
from vjepa2cli.errors import VideoError
from vjepa2cli.files import replaced_atomically


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
            check_pixels(pixels, ndim=3)
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
