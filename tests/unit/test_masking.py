"""Multi-block masks: what is kept and what is predicted."""

import pytest
import torch

from vjepa2cli.data.masking import sample_masks
from vjepa2cli.errors import ConfigError
from vjepa2cli.settings import MaskConfig
from vjepa2cli.tokens import TokenGrid

SHORT, LONG = MaskConfig(), MaskConfig(num_blocks=2, spatial_scale=(0.7, 0.7))


def _draw(shape: MaskConfig, grid: TokenGrid, *, batch: int, seed: int):
    return sample_masks(batch, grid, shape=shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_context_and_target_never_overlap_and_ascend(shape: MaskConfig) -> None:
    grid = TokenGrid(4, 8, 8)
    for seed in range(20):
        ids = _draw(shape, grid, batch=3, seed=seed)
        for context, target in zip(ids.context_ids.tolist(), ids.target_ids.tolist(), strict=True):
            assert not set(context) & set(target)
            assert context == sorted(set(context))
            assert target == sorted(set(target))
            assert min(context + target) >= 0
            assert max(context + target) < grid.num_tokens


def test_a_block_over_the_whole_clip_hides_the_same_place_in_every_frame() -> None:
    grid = TokenGrid(4, 8, 8)
    ids = _draw(SHORT, grid, batch=1, seed=3)
    hidden = torch.zeros(grid.num_tokens, dtype=torch.bool)
    hidden[ids.target_ids[0]] = True
    frames = hidden.view(4, 64)
    assert torch.equal(frames, frames[:1].expand(4, -1))


@pytest.mark.parametrize(
    ("shape", "batch", "context", "target"),
    [(SHORT, 1, 0.39, 0.61), (LONG, 1, 0.187, 0.813), (SHORT, 24, 0.26, 0.46), (LONG, 24, 0.067, 0.705)],
)
def test_kept_fractions_are_those_of_the_released_sampler(shape: MaskConfig, batch: int, context: float, target: float) -> None:
    # The released sampler's means over 60 batches (at batch 1 over 3 x 60); one draw spreads by 0.073, so the difference of two
    # such means has a standard error of at most 0.011, and 0.033 is three of them.
    grid = TokenGrid(8, 16, 16)
    kept, predicted = 0.0, 0.0
    for seed in range(60):
        ids = _draw(shape, grid, batch=batch, seed=seed)
        kept += ids.context_ids.shape[1] / grid.num_tokens / 60
        predicted += ids.target_ids.shape[1] / grid.num_tokens / 60
    assert kept == pytest.approx(context, abs=0.033)
    assert predicted == pytest.approx(target, abs=0.033)


def test_the_same_seed_gives_the_same_masks() -> None:
    grid = TokenGrid(2, 6, 6)
    first, second = _draw(LONG, grid, batch=8, seed=5), _draw(LONG, grid, batch=8, seed=5)
    assert torch.equal(first.context_ids, second.context_ids)
    assert torch.equal(first.target_ids, second.target_ids)


def test_a_late_start_hides_everything_beyond_the_horizon() -> None:
    grid = TokenGrid(4, 6, 6)
    ids = _draw(MaskConfig(num_blocks=1, max_temporal_keep=0.5), grid, batch=2, seed=1)
    assert int(ids.context_ids.max()) < 2 * 36


def test_blocks_that_leave_nothing_to_see_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"masks\.spatial_scale"):
        _draw(MaskConfig(num_blocks=1, spatial_scale=(1.0, 1.0), aspect_ratio=(1.0, 1.0)), TokenGrid(2, 4, 4), batch=1, seed=0)
