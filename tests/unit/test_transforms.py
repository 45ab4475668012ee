"""Transforms: the released geometry, pixel by pixel, and augmentation as a function of its generator."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vjepa2cli.data.cropping import crop_geometry
from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD, augment_clip, frame_transform, preprocess
from vjepa2cli.data.video import Clip
from vjepa2cli.errors import VideoError


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


def released_geometry(height: int, width: int, short: int, crop: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the resized frame and corner of the crop, in the floating-point words of the released code."""
    rows, columns = (int(short * height / width), short) if width < height else (short, int(short * width / height))
    return (rows, columns), (round((rows - crop[0]) / 2.0), round((columns - crop[1]) / 2.0))


def bilinear_at(frame: np.ndarray, size: tuple[int, int], corner: tuple[int, int], crop: tuple[int, int]) -> np.ndarray:
    """The crop of a resized frame [Y, X, 3] in float64, point by point: pixel centres, edges repeated, no averaging."""
    weights = []
    for axis in range(2):
        places = (np.arange(crop[axis]) + corner[axis] + 0.5) * frame.shape[axis] / size[axis] - 0.5
        lower = np.floor(places)
        matrix = np.zeros((crop[axis], frame.shape[axis]))
        for row, (low, share) in enumerate(zip(lower.astype(int), places - lower, strict=True)):
            matrix[row, np.clip(low, 0, frame.shape[axis] - 1)] += 1 - share
            matrix[row, np.clip(low + 1, 0, frame.shape[axis] - 1)] += share
        weights.append(matrix)
    return np.einsum("iy,jx,yxc->ijc", *weights, frame, optimize=True)


def levels(clip: torch.Tensor) -> np.ndarray:
    """A normalised clip [3, F, Y, X] in levels of 0 to 255, [F, Y, X, 3]."""
    return 255 * (clip.permute(1, 2, 3, 0).double().numpy() * IMAGE_STD + IMAGE_MEAN)


SIZES = [(120, 160), (160, 120), (101, 57), (57, 101), (64, 64), (73, 97), (30, 40), (17, 23), (211, 401)]


@pytest.mark.parametrize("crop", [64, (64, 64), (48, 64), (64, 48)])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_evaluation_transform_is_the_released_one_at_any_size(height: int, width: int, crop: int | tuple[int, int]) -> None:
    pixels = noise(2, height, width)
    shape = (crop, crop) if isinstance(crop, int) else crop
    size, corner = released_geometry(height, width, int(min(shape) * 256 / 224), shape)
    if size[0] < shape[0] or size[1] < shape[1]:
        # The released crop refuses this one; here the frame is enlarged until the crop fits, and shows all of one side.
        scale = max(shape[0] / height, shape[1] / width)
        size = (int(height * scale + 1e-9), int(width * scale + 1e-9))
        corner = (round((size[0] - shape[0]) / 2), round((size[1] - shape[1]) / 2))
        assert 0 in corner
    found = preprocess(clip_of(pixels), crop=crop)
    assert found.shape == (3, 2, *shape)
    # OpenCV works in fixed point and rounds to whole levels.
    assert np.abs(levels(found)[1] - bilinear_at(pixels[1], size, corner, shape)).max() <= 1.0


def test_geometry_is_the_released_one_for_every_size_that_the_released_code_takes() -> None:
    rng = np.random.default_rng(0)
    taken = 0
    for height, width, *crop in rng.integers(1, 2200, (20_000, 4)).tolist():
        size, corner = released_geometry(height, width, int(min(crop) * 256 / 224), (crop[0], crop[1]))
        found = crop_geometry(height, width, crop=(crop[0], crop[1]))
        if size[0] >= crop[0] and size[1] >= crop[1]:
            assert (found.size, found.box) == (size, (*corner, *crop))
            taken += 1
        assert min(found.box[:2]) >= 0
        assert all(found.box[axis] + crop[axis] <= found.size[axis] for axis in range(2))
    assert 5_000 < taken < 20_000


def test_image_and_video_go_through_the_same_rule() -> None:
    pixels = noise(3, 90, 151)
    video = preprocess(clip_of(pixels), crop=(32, 48))
    for index in range(3):
        assert torch.equal(preprocess(clip_of(pixels[index : index + 1]), crop=(32, 48))[:, 0], video[:, index])


def test_crop_without_a_pixel_is_refused() -> None:
    with pytest.raises(VideoError, match="crop: 0 x 32"):
        preprocess(clip_of(noise(1, 40, 40)), crop=(0, 32))


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
