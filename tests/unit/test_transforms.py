"""Transforms: the released geometry, pixel by pixel, and augmentation as a function of its generator."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD, augment_clip, frame_transform, preprocess
from vjepa2cli.data.video import Clip


def normalised(pixels: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return ((x - mean) / std).float()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def clip_of(pixels: np.ndarray) -> Clip:
    return Clip(pixels, 4.0, np.arange(len(pixels)) / 4, "noise")


def test_evaluation_transform_at_its_own_size_is_a_centre_crop() -> None:
    pixels = noise(2, 292, 390)
    expected = normalised(pixels[:, 18:274, 67:323]).transpose(0, 1)
    assert torch.allclose(preprocess(clip_of(pixels)), expected, atol=1e-6)


def test_evaluation_transform_resizes_bilinearly_without_averaging() -> None:
    pixels = noise(1, 120, 160)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    # int(64 * 256 / 224) = 73 rows, int(73 * 160 / 120) = 97 columns; the crop begins at round(4.5) = 4 and round(16.5) = 16.
    x = functional.interpolate(x, size=(73, 97), mode="bilinear", align_corners=False)[:, :, 4:68, 16:80]
    ours = preprocess(clip_of(pixels), crop=64).transpose(0, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    levels = (ours * std + torch.tensor(IMAGE_MEAN).view(3, 1, 1)) * 255
    # OpenCV works in fixed point and rounds to whole levels.
    assert (levels - x).abs().max() <= 1.0


@pytest.mark.parametrize(
    ("height", "width", "left", "cut"),
    [(180, 320, 38, 243), (376, 672, 82, 508), (480, 640, 0, 640)],
)
def test_wide_geometry_is_the_released_one(height: int, width: int, left: int, cut: int) -> None:
    pixels = noise(1, height, width)
    region = normalised(pixels[:, :, left : left + cut])
    expected = functional.interpolate(region, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(frame_transform(pixels, crop=64, geometry="wide"), expected, atol=1e-5)


def test_centre_geometry_at_its_own_size_only_normalises() -> None:
    pixels = noise(3, 32, 48)
    assert torch.allclose(frame_transform(pixels, crop=32), normalised(pixels[:, :, 8:40]), atol=1e-6)


def test_no_frame_sees_another_in_the_world_models_transform() -> None:
    pixels = noise(4, 40, 60)
    together = frame_transform(pixels, crop=32, geometry="wide")
    alone = torch.cat([frame_transform(pixels[index : index + 1], crop=32, geometry="wide") for index in range(4)])
    assert torch.equal(together, alone)


def test_augmentation_is_a_function_of_its_generator_and_equal_over_frames() -> None:
    pixels = np.repeat(noise(1, 48, 64), 5, axis=0)

    def draw(seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        return augment_clip(pixels, rng, crop=32, scale=(0.3, 1.0), aspect_ratio=(0.75, 1.35), flip=0.5)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    clip = draw(3)
    assert clip.shape == (3, 5, 32, 32)
    assert all(torch.equal(clip[:, 0], clip[:, index]) for index in range(5))


def test_whole_frame_and_certain_flip_mirror_the_columns() -> None:
    pixels = noise(2, 32, 32)
    rng = np.random.default_rng(0)
    clip = augment_clip(pixels, rng, crop=32, scale=(1.0, 1.0), aspect_ratio=(1.0, 1.0), flip=1.0)
    assert torch.allclose(clip, normalised(pixels[:, :, ::-1]).transpose(0, 1), atol=1e-6)


def test_impossible_area_falls_back_to_the_released_centre_region() -> None:
    pixels = noise(1, 180, 320)
    clip = augment_clip(pixels, np.random.default_rng(0), crop=64, scale=(1.777, 1.777), aspect_ratio=(0.75, 1.35), flip=0.0)
    assert torch.equal(clip.transpose(0, 1), frame_transform(pixels, crop=64, geometry="wide"))
