"""From decoded frames to what a network reads: normalised float32, channels first, at the crop of the model."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vjepa2cli.data.cropping import Box, check_frames, evaluation_crop
from vjepa2cli.data.video import Clip
from vjepa2cli.data.views import View

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

_WIDE_ASPECT = 1.35
_CROP_TRIES = 10


def preprocess(clip: Clip, *, crop: int | tuple[int, int] = 256) -> torch.Tensor:
    """The released evaluation transform of a video or an image: resize, central crop (see `crop_geometry`), ImageNet statistics.

    `crop` is a side, or (height, width). Returns float32 [3, F, height, width]. The resampling is that of the released
    evaluations, OpenCV's bilinear without antialiasing, also where it shrinks; transformers' processor averages there.
    """
    return normalise(torch.from_numpy(evaluation_crop(clip.pixels, crop=crop)).movedim(-1, 0))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Levels 0 to 255, [3, F, Y, X] or [B, 3, F, Y, X] -> float32 of the same shape, by the statistics of ImageNet."""
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1, 1) * 255 for values in (IMAGE_MEAN, IMAGE_STD))
    return (pixels.to(torch.float32, memory_format=torch.contiguous_format) - mean) / std


def frame_transform(
    frames: NDArray[np.uint8], *, crop: int, geometry: Literal["centre", "wide"] = "centre", view: View | None = None
) -> torch.Tensor:
    """The world model's transform of frames uint8 [T, Y, X, 3], each alone: float32 [T, 3, crop, crop].

    "centre" is the central square; "wide" is the released V-JEPA 2-AC geometry, the central region of aspect 1.35 squashed
    to a square. Bilinear without averaging. A `view` shows a part of that, in other colours.
    Source: facebookresearch/vjepa2, app/vjepa_droid/transforms.py.
    """
    check_frames(frames)
    height, width = frames.shape[1:3]
    if geometry == "centre":
        side = min(height, width)
        box = ((height - side) // 2, (width - side) // 2, side, side)
    else:
        box = _fallback_box(height, width, (0.75, _WIDE_ASPECT))
    if view is None:
        return _normalised(frames, box, (crop, crop))
    return _normalised(frames, view.part_of(box), (crop, crop), view=view)


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
    check_frames(frames)
    box = _random_box(frames.shape[1], frames.shape[2], rng, scale, aspect_ratio)
    clip = _normalised(frames, box, (crop, crop)).transpose(0, 1)
    return clip.flip(-1) if rng.random() < flip else clip


def _normalised(frames: NDArray[np.uint8], box: Box, size: tuple[int, int], *, view: View | None = None) -> torch.Tensor:
    """Cut (top, left, height, width) out of uint8 [F, Y, X, 3], resize to `size`, normalise: float32 [F, 3, *size].

    A `view` gives its colours.
    """
    top, left, height, width = box
    cut = np.ascontiguousarray(frames[:, top : top + height, left : left + width])
    x = torch.from_numpy(cut).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # [F, 3, Y, X]
    if x.shape[-2:] != size:
        x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    if view is not None:
        x = view.recolour(x)
    return normalise(x.transpose(0, 1)).transpose(0, 1)


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
