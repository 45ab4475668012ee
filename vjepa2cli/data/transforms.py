"""From decoded frames to what a network reads: normalised float32, channels first, at the crop of the model."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vjepa2cli.data.video import Clip, resize
from vjepa2cli.errors import VideoError

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

_WIDE_ASPECT = 1.35
_CROP_TRIES = 10

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


def preprocess(clip: Clip, *, crop: int | tuple[int, int] = 256) -> torch.Tensor:
    """The released evaluation transform of a video or an image: resize, central crop (see `crop_geometry`), ImageNet statistics.

    `crop` is a side, or (height, width). Returns float32 [3, F, height, width]. The resampling is that of the released
    evaluations, OpenCV's bilinear without antialiasing, also where it shrinks; transformers' processor averages there.
    """
    _check(clip.pixels)
    geometry = crop_geometry(*clip.pixels.shape[1:3], crop=crop)
    pixels = resize(clip.pixels, geometry.size, method="bilinear")
    return _normalised(pixels, geometry.box, geometry.box[2:]).transpose(0, 1)


def frame_transform(frames: NDArray[np.uint8], *, crop: int, geometry: Literal["centre", "wide"] = "centre") -> torch.Tensor:
    """The world model's transform of frames uint8 [T, Y, X, 3], each alone: float32 [T, 3, crop, crop].

    "centre" is the central square; "wide" is the released V-JEPA 2-AC geometry, the central region of aspect 1.35 squashed
    to a square. Bilinear without averaging. Source: facebookresearch/vjepa2, app/vjepa_droid/transforms.py.
    """
    _check(frames)
    height, width = frames.shape[1:3]
    if geometry == "centre":
        side = min(height, width)
        box = ((height - side) // 2, (width - side) // 2, side, side)
    else:
        box = _fallback_box(height, width, (0.75, _WIDE_ASPECT))
    return _normalised(frames, box, (crop, crop))


def augment_clip(
    frames: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
    flip: float,
) -> torch.Tensor:
    """Random resized crop and horizontal flip, the same for all frames uint8 [F, Y, X, 3]: float32 [3, F, crop, crop].

    `scale` is the share of the area, `aspect_ratio` width over height, `flip` a probability; `rng` decides everything.
    Source: facebookresearch/vjepa2, src/datasets/utils/video/transforms.py, random_resized_crop.
    """
    _check(frames)
    box = _random_box(frames.shape[1], frames.shape[2], rng, scale, aspect_ratio)
    clip = _normalised(frames, box, (crop, crop)).transpose(0, 1)
    return clip.flip(-1) if rng.random() < flip else clip


def _check(frames: NDArray[np.uint8]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise VideoError(f"frames: {frames.dtype} {list(frames.shape)} is not uint8 [F, Y, X, 3]")


def _normalised(frames: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> torch.Tensor:
    """Cut (top, left, height, width) out of uint8 [F, Y, X, 3], resize to `size`, normalise: float32 [F, 3, *size]."""
    top, left, height, width = box
    cut = np.ascontiguousarray(frames[:, top : top + height, left : left + width])
    x = torch.from_numpy(cut).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # [F, 3, Y, X]
    if x.shape[-2:] != size:
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return (x - mean * 255) / (std * 255)


def _random_box(
    height: int, width: int, rng: np.random.Generator, scale: tuple[float, float], aspect_ratio: tuple[float, float]
) -> Box:
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    for _ in range(_CROP_TRIES):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return _fallback_box(height, width, aspect_ratio)


def _fallback_box(height: int, width: int, aspect_ratio: tuple[float, float]) -> Box:
    """The largest central region whose aspect lies in the range."""
    h, w = height, width
    if width / height < aspect_ratio[0]:
        h = min(height, round(width / aspect_ratio[0]))
    elif width / height > aspect_ratio[1]:
        w = min(width, round(height * aspect_ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w
