"""How far the evaluation transform lies from the processor of transformers: its resampling, and where it rounds half a pixel."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import vjepa2cli as vj
from vjepa2cli.data.cropping import crop_geometry
from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def levels(clip: torch.Tensor) -> torch.Tensor:
    """A normalised clip [3, F, Y, X] in levels of 0 to 255."""
    return 255 * (clip * torch.tensor(IMAGE_STD).view(3, 1, 1, 1) + torch.tensor(IMAGE_MEAN).view(3, 1, 1, 1))


def antialiased(pixels: np.ndarray, crop: tuple[int, int], corner: tuple[int, int]) -> torch.Tensor:
    """The frame at the size of our geometry, resampled as torchvision does it for transformers, cut at `corner`."""
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    size = crop_geometry(*pixels.shape[1:3], crop=crop).size
    resized = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True)
    cut = resized[:, :, corner[0] : corner[0] + crop[0], corner[1] : corner[1] + crop[1]]
    return cut.transpose(0, 1).float()


@pytest.mark.parametrize("crop", [(64, 64), (64, 80)])
@pytest.mark.parametrize(("height", "width"), [(120, 160), (95, 160), (101, 131), (40, 50)])
def test_processor_of_transformers_differs_by_antialiasing_and_half_a_pixel(
    height: int, width: int, crop: tuple[int, int]
) -> None:
    pytest.importorskip("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        processor = transformers.VJEPA2VideoProcessor(crop_size={"height": crop[0], "width": crop[1]})
        pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        theirs = levels(processor([pixels], return_tensors="pt")["pixel_values_videos"][0].transpose(0, 1))
    size = crop_geometry(height, width, crop=crop).size
    # transformers rounds the corner down, where the released crop rounds half a pixel to the even side.
    expected = antialiased(pixels, crop, ((size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2))
    assert (theirs - expected).abs().max() < 1e-3


# Mean difference in levels of 0 to 255 (crop 256, first four frames) of the resampling alone, and with transformers' corner as
# well; docs/encode.md says the same.
DISTANCES = [
    ("openh264/BA_MW_D.264", 0.17, 0.17),
    ("mdn-learning-area/rabbit320.webm", 0.21, 0.21),
    ("moviepy/chaplin.mp4", 0.84, 6.21),
    ("androidx-media/sample_portrait.mp4", 1.25, 1.25),
    ("segment-anything-2/05_default_juggle.mp4", 4.86, 12.50),
    ("metadata-extractor-images/Sony ILCE-7M3 (A7M3).mts", 1.22, 2.51),
]


@pytest.mark.parametrize(("name", "resampling", "whole"), DISTANCES)
def test_distance_to_transformers_on_real_clips(shared: Path, name: str, resampling: float, whole: float) -> None:
    clip = vj.read_clip(shared / "data" / "videos" / name, num_frames=4)
    geometry = crop_geometry(*clip.pixels.shape[1:3], crop=256)
    ours = levels(vj.preprocess(clip, crop=256))
    corner = ((geometry.size[0] - 256) // 2, (geometry.size[1] - 256) // 2)
    for at, expected in ((geometry.box[:2], resampling), (corner, whole)):
        difference = (ours - antialiased(clip.pixels, (256, 256), at)).abs()
        # Decoders and vector code may round a level differently on another processor.
        assert float(difference.mean()) == pytest.approx(expected, abs=0.02)
        if min(geometry.size) > min(clip.pixels.shape[1:3]):
            assert difference.max() < 1.01
