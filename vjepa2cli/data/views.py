"""Other views of the same frames: a part of the picture in other colours, the same for all frames of a recording.

A view depends on no frame, so the latents of a view are as frame-causal as those of the plain picture.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.data.cropping import Box

_LUMA = (0.299, 0.587, 0.114)
_MIDDLE = 127.5


class ViewRanges(Protocol):
    """What views are drawn from; `settings.ViewsConfig` has these."""

    @property
    def scale(self) -> tuple[float, float]:
        """Share of the plain picture's area that a view shows."""

    @property
    def aspect_ratio(self) -> tuple[float, float]:
        """Width over height of that part, over the plain picture's."""

    @property
    def brightness(self) -> float:
        """How far the factor on all levels is from one."""

    @property
    def contrast(self) -> float:
        """How far the factor on the distance from middle grey is from one."""

    @property
    def saturation(self) -> float:
        """How far the factor on the distance from grey is from one."""

    @property
    def hue(self) -> float:
        """How far colours are turned, as a share of the whole circle."""


@dataclass(frozen=True)
class View:
    """A part of the picture, `box` (top, left, height, width) in shares of it, and an affine map of its colours.

    colours: 3 rows of 3 factors and an offset, on levels of 0 to 255.
    """

    box: tuple[float, float, float, float]
    colours: tuple[tuple[float, float, float, float], ...]

    def part_of(self, box: Box) -> Box:
        """The part that this view shows of a box of pixels."""
        top, left, height, width = box
        rows, columns = max(1, round(self.box[2] * height)), max(1, round(self.box[3] * width))
        return (
            top + min(round(self.box[0] * height), height - rows),
            left + min(round(self.box[1] * width), width - columns),
            rows,
            columns,
        )

    def recolour(self, pixels: Tensor) -> Tensor:
        """Levels 0 to 255, [F, 3, Y, X] float32, in the colours of this view."""
        factors = torch.tensor(self.colours, dtype=pixels.dtype, device=pixels.device)
        turned = torch.einsum("oc,fcyx->foyx", factors[:, :3], pixels) + factors[:, 3].view(3, 1, 1)
        return turned.clamp_(0, 255)


def draw_view(rng: np.random.Generator, ranges: ViewRanges) -> View:
    """A view from its ranges; `rng` decides everything."""
    area = rng.uniform(*ranges.scale)
    aspect = math.exp(rng.uniform(math.log(ranges.aspect_ratio[0]), math.log(ranges.aspect_ratio[1])))
    height, width = min(1.0, math.sqrt(area / aspect)), min(1.0, math.sqrt(area * aspect))
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    brightness, contrast, saturation = (
        rng.uniform(1 - reach, 1 + reach) for reach in (ranges.brightness, ranges.contrast, ranges.saturation)
    )
    turned = _turned(2 * math.pi * rng.uniform(-ranges.hue, ranges.hue))
    grey = np.tile(_LUMA, (3, 1))
    factors = brightness * contrast * (saturation * turned + (1 - saturation) * grey)
    offset = (1 - contrast) * _MIDDLE
    colours = tuple((float(row[0]), float(row[1]), float(row[2]), offset) for row in factors)
    return View((top, left, height, width), colours)


def _turned(angle: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The colours turned around grey, in the plane of the two chroma axes of YIQ: 3 x 3."""
    to_yiq = np.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    return np.asarray(np.linalg.inv(to_yiq) @ turn @ to_yiq)
