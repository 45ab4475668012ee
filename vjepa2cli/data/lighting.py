"""Another light on a clip: brighter or darker, tinted, stronger on one side; the same for all its frames.

A pretraining whose context encoder sees a clip in another light than the target encoder has nothing to gain from telling lights
apart. The released recipe has no such thing: its crops are the same for both encoders, and colours stay as they are.
"""

import math

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD

_TINT = 0.3
_SLOPE = 0.5
_DARKEST = 0.05


def draw_light(rng: np.random.Generator, reach: float) -> Tensor:
    """A light up to `reach` (0 to 1) off: the factor on the level of each channel, as (middle, by row, by column) [3, 3] float32.

    Brightness is uniform in 1 - reach to 1 + reach, tint varies by three tenths of that, and the light falls off along a random
    direction, from the middle to an edge by up to half of it.
    """
    brightness = 1.0 + reach * rng.uniform(-1, 1)
    tint = 1.0 + _TINT * reach * rng.uniform(-1, 1, 3)
    angle, slope = rng.uniform(0, 2 * math.pi), _SLOPE * reach * rng.uniform()
    shape = np.array([1.0, slope * math.sin(angle), slope * math.cos(angle)])
    return torch.from_numpy(np.outer(brightness * tint, shape).astype(np.float32))


def relight(clips: Tensor, lights: Tensor) -> Tensor:
    """Normalised clips [B, 3, F, Y, X] in the lights [B, 3, 3] of `draw_light`; no level leaves 0 to 255."""
    height, width = clips.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=clips.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=clips.device)
    middle, by_row, by_column = lights.to(clips.device)[:, :, None, :, None, None].unbind(3)  # each [B, 3, 1, 1, 1]
    factors = (middle + by_row * rows + by_column * columns).clamp_(min=_DARKEST)  # [B, 3, 1, Y, X]
    mean, std = (torch.tensor(values, device=clips.device).view(3, 1, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return ((clips * std + mean) * factors).clamp_(0, 1).sub_(mean).div_(std)
