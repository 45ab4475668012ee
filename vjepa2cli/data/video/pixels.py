"""Pixels of decoded frames: their checks, and how they are resized."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import VideoError

Pixels = NDArray[np.uint8]


def use_one_thread() -> None:
    """Keep OpenCV to one thread in this process, for a process that has siblings on the other cores."""
    cv2.setNumThreads(1)


def resize(frames: Pixels, size: tuple[int, int], *, method: Literal["area", "blocks", "bilinear"] = "area") -> Pixels:
    """Resize uint8 [..., Y, X, 3] to `size` (height, width).

    "area" averages where it shrinks and is bilinear where it grows. "blocks" averages whole blocks as far as they divide the
    frame, then is bilinear: close to "area", and five times as fast, since OpenCV averages parts of pixels one by one.
    "bilinear" never averages, as the released transforms do.
    """
    height, width = size
    if frames.shape[-3:-1] == (height, width):
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    if method == "blocks":
        flat = _averaged_blocks(flat, height, width)
    shrinks = height <= flat.shape[1] and width <= flat.shape[2]
    how = cv2.INTER_AREA if method == "area" and shrinks else cv2.INTER_LINEAR
    if flat.shape[1:3] == (height, width):
        return flat.reshape(*frames.shape[:-3], height, width, 3)
    out = np.empty((len(flat), height, width, 3), np.uint8)
    for index, frame in enumerate(flat):
        cv2.resize(frame, (width, height), dst=out[index], interpolation=how)
    return out.reshape(*frames.shape[:-3], height, width, 3)


def _averaged_blocks(frames: Pixels, height: int, width: int) -> Pixels:
    """Frames shrunk by the largest whole number that divides both sides and leaves them no smaller than asked for."""
    _, from_height, from_width, _ = frames.shape
    most = min(from_height // height, from_width // width)
    side = next((side for side in range(most, 1, -1) if from_height % side == 0 and from_width % side == 0), 1)
    return resize(frames, (from_height // side, from_width // side)) if side > 1 else frames


def check_pixels(pixels: Pixels, *, ndim: int) -> None:
    """Raise VideoError unless this is uint8 RGB with `ndim` axes."""
    if pixels.dtype != np.uint8 or pixels.ndim != ndim or pixels.shape[-1] != 3:
        raise VideoError(f"pixels: {pixels.dtype} {list(pixels.shape)} is not uint8 with {ndim} axes, the last of them RGB")
