"""Another light for the context encoder: within its reach, the same for all frames, and no concern of the targets."""

import numpy as np
import pytest
import torch

from vjepa2cli.data.lighting import draw_light, relight
from vjepa2cli.data.transforms import normalise

PLAIN = torch.tensor([[1.0, 0.0, 0.0]] * 3)


def _levels(clips: torch.Tensor) -> torch.Tensor:
    """Normalised clips back as levels of 0 to 255."""
    black, white = (normalise(torch.full((3, 1, 1, 1), level)) for level in (0.0, 255.0))
    return (clips - black) / (white - black) * 255


@pytest.mark.parametrize("reach", [0.2, 1.0])
def test_a_light_stays_within_its_reach(reach: float) -> None:
    lights = torch.stack([draw_light(np.random.default_rng(seed), reach) for seed in range(200)])
    middle = lights[:, :, 0]
    assert (middle - 1).abs().max() <= reach + 0.3 * reach * (1 + reach) + 1e-6
    assert middle.mean(dim=1).std() > 0.4 * reach  # a uniform draw of half-width r has a deviation of 0.58 r
    fall = lights[:, :, 1:].norm(dim=-1) / middle
    assert fall.max() <= 0.5 * reach + 1e-6
    assert fall.max() > 0.4 * reach


def test_the_plain_light_changes_nothing_and_double_brightness_doubles_every_level() -> None:
    levels = torch.rand(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0)) * 120
    clips = normalise(levels)
    torch.testing.assert_close(relight(clips, PLAIN.expand(2, 3, 3)), clips, rtol=0, atol=1e-6)
    torch.testing.assert_close(_levels(relight(clips, 2 * PLAIN.expand(2, 3, 3))), 2 * levels, rtol=1e-5, atol=1e-3)


def test_a_light_that_falls_off_is_the_same_for_all_frames_and_clips_at_white() -> None:
    clips = normalise(torch.full((1, 3, 3, 5, 5), 200.0))
    seen = _levels(relight(clips, torch.tensor([[[1.0, 0.5, 0.0]] * 3])))
    assert torch.equal(seen[:, :, 0], seen[:, :, 2])
    torch.testing.assert_close(seen[0, 0, 0, :, 0], torch.tensor([100.0, 150.0, 200.0, 250.0, 255.0]), rtol=0, atol=1e-3)
