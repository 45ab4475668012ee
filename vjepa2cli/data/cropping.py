"""What an evaluation crop shows of a frame: whole levels 0 to 255, without torch, so that a decoding process starts quickly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.video import resize
from vjepa2cli.errors import VideoError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class CropGeometry:
    """What an evaluation crop shows: the frame is resized to `size` (height, width), and `box` of that is kept."""

    size: tuple[int, int]
    box: Box


def crop_geometry(height: int, width: int, *, crop: int | tuple[int, int]) -> CropGeometry:
    """The released evaluation geometry of a frame of height x width pixels, for a square or a (height, width) crop.

    The shorter side becomes int(256 / 224 of the crop's shorter side), the other one keeps the aspect, rounded down; the crop is
    central, where half a pixel goes to the even side. A crop that is longer than that frame, which the released crop refuses and
    transformers pads with black, enlarges the frame until it covers the crop.
    Source: facebookresearch/vjepa2, evals/video_classification_frozen/utils.py and src/datasets/utils/video/transforms.py.
    """
    crop_height, crop_width = (crop, crop) if isinstance(crop, int) else crop
    if min(crop_height, crop_width) < 1:
        raise VideoError(f"crop: {crop_height} x {crop_width} holds no pixel; give a height and a width of at least 1")
    short = min(crop_height, crop_width) * 256 // 224
    size = (short * height // width, short) if width < height else (short, short * width // height)
    if size[0] < crop_height or size[1] < crop_width:
        if crop_width * height > crop_height * width:
            size = (crop_width * height // width, crop_width)
        else:
            size = (crop_height, crop_height * width // height)
    # Python's round, to even, as in the released centre crop.
    top, left = round((size[0] - crop_height) / 2), round((size[1] - crop_width) / 2)
    return CropGeometry(size, (top, left, crop_height, crop_width))


def evaluation_crop(frames: NDArray[np.uint8], *, crop: int | tuple[int, int]) -> NDArray[np.uint8]:
    """Frames uint8 [F, Y, X, 3] resized and cut by `crop_geometry`: uint8 [F, *crop, 3]."""
    check_frames(frames)
    geometry = crop_geometry(*frames.shape[1:3], crop=crop)
    top, left, height, width = geometry.box
    return resize(frames, geometry.size, method="bilinear")[:, top : top + height, left : left + width]


def check_frames(frames: NDArray[np.uint8]) -> None:
    """Raise VideoError unless frames are uint8 [F, Y, X, 3]."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoError(f"frames: {frames.dtype} {list(frames.shape)} is not uint8 [F, Y, X, 3]")
