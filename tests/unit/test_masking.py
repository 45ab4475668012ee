"""Multi-block masks: what is kept and what is predicted, and who shares a draw."""

import pytest
import torch

from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.data.masking import MaskIds, kept_tokens, sample_fixed_masks, sample_masks
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


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        (SHORT, [(6, 7), (6, 6), (7, 6), (6, 6), (6, 7), (7, 5)]),
        (LONG, [(12, 15), (14, 13), (15, 12), (13, 14), (12, 15), (16, 11)]),
    ],
)
def test_block_sizes_are_those_that_the_released_sampler_draws(shape: MaskConfig, sides: list[tuple[int, int]]) -> None:
    # One block is all that a mask of one block hides, so its sides are read off what is to be predicted.
    grid = TokenGrid(8, 16, 16)
    one_block = shape.model_copy(update={"num_blocks": 1})
    for seed, (height, width) in enumerate(sides):
        hidden = _draw(one_block, grid, batch=1, seed=seed).target_ids[0]
        t, row, column = grid.positions(hidden)
        assert (int(t.max() - t.min()) + 1, int(row.max() - row.min()) + 1, int(column.max() - column.min()) + 1) == (
            8,
            height,
            width,
        )
        assert len(hidden) == 8 * height * width


def _fixed(shape: MaskConfig, grid: TokenGrid, *, batch: int, seed: int) -> MaskIds:
    return sample_fixed_masks(batch, grid, shape=shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [SHORT, LONG, MaskConfig(temporal_scale=(0.3, 0.8)), MaskConfig(max_temporal_keep=0.5)])
def test_a_fixed_share_is_kept_whatever_the_batch_and_the_rest_is_predicted(shape: MaskConfig) -> None:
    grid = TokenGrid(4, 8, 8)
    for seed, batch in enumerate((1, 3, 24)):
        ids = _fixed(shape, grid, batch=batch, seed=seed)
        assert ids.context_ids.shape == (batch, kept_tokens(grid, shape))
        assert torch.equal(torch.cat((ids.context_ids, ids.target_ids), dim=1).sort().values, torch.arange(256).expand(batch, -1))
        assert torch.equal(ids.context_ids, ids.context_ids.sort().values)


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_the_fixed_share_is_what_independent_blocks_leave_on_average(shape: MaskConfig) -> None:
    # The share that one mask keeps spreads by 0.073 (8 blocks) and 0.068 (2 blocks): of 400 its mean has an error of 0.004.
    grid = TokenGrid(8, 16, 16)
    mean = sum(_draw(shape, grid, batch=1, seed=seed).context_ids.shape[1] for seed in range(400)) / 400 / grid.num_tokens
    assert kept_tokens(grid, shape) / grid.num_tokens == pytest.approx(mean, abs=0.012)


@pytest.mark.parametrize("shape", [SHORT, LONG])
def test_a_fixed_mask_hides_the_same_places_in_every_frame_and_another_set_of_them_in_every_clip(shape: MaskConfig) -> None:
    grid = TokenGrid(4, 8, 8)
    hidden = torch.zeros(6, grid.num_tokens, dtype=torch.bool).scatter(1, _fixed(shape, grid, batch=6, seed=0).target_ids, True)
    frames = hidden.view(6, 4, 64)
    assert torch.equal(frames, frames[:, :1].expand(-1, 4, -1))
    assert len({tuple(clip.tolist()) for clip in frames[:, 0]}) == 6


def _batches(**changes: object) -> MaskBatches:
    return MaskBatches(TokenGrid(4, 8, 8), (SHORT, LONG), batch_size=8, seed=3, **changes)  # type: ignore[arg-type]


def _rows(batches: MaskBatches, *cuts: range) -> list[tuple[list[int], list[int]]]:
    """Context and target ids of every row under the second family, asked for in pieces."""
    draws = [draw for rows in cuts for draw in batches.draws(5, rows=rows)]
    return [
        (context, target)
        for _, families in draws
        for context, target in zip(families[1].context_ids.tolist(), families[1].target_ids.tolist(), strict=True)
    ]


@pytest.mark.parametrize("rows_per_draw", [None, 1, 2, 3, 8])
@pytest.mark.parametrize("kept", ["shortest", "fixed"])
def test_the_masks_of_a_row_do_not_depend_on_who_asks_for_which_rows(kept: str, rows_per_draw: int | None) -> None:
    batches = _batches(kept=kept, rows_per_draw=rows_per_draw)
    whole = _rows(batches, range(8))
    assert len(whole) == 8
    assert _rows(batches, range(4), range(4, 8)) == whole
    assert _rows(batches, range(1), range(1, 6), range(6, 8)) == whole


def test_rows_that_share_no_draw_keep_different_numbers_of_tokens() -> None:
    assert len({len(context) for context, _ in _rows(_batches(), range(8))}) == 1
    assert len({len(context) for context, _ in _rows(_batches(rows_per_draw=1), range(8))}) > 1


def test_draws_families_groups_and_steps_are_independent_unless_the_released_correlation_is_asked_for() -> None:
    def blocks(batches: MaskBatches, step: int) -> list[tuple[list[int], list[int]]]:
        return [tuple(ids.target_ids[0].tolist() for ids in families) for _, families in batches.draws(step, rows=range(8))]

    free, tied = (_batches(rows_per_draw=2, correlated=correlated) for correlated in (False, True))
    assert len({str(draw) for draw in blocks(free, 1)}) == 4
    assert len({str(draw) for draw in blocks(tied, 1)}) == 1
    assert blocks(free, 1) != blocks(free, 2)
    assert blocks(tied, 1) != blocks(tied, 2)
    assert blocks(_batches(group=1), 1) != blocks(_batches(), 1)


def test_correlated_families_take_their_aspect_ratio_from_the_same_number() -> None:
    shapes = (MaskConfig(num_blocks=1), MaskConfig(num_blocks=1))

    def areas(correlated: bool) -> list[tuple[int, int]]:
        batches = MaskBatches(TokenGrid(1, 16, 16), shapes, batch_size=1, seed=0, correlated=correlated)
        drawn = [batches.draws(step, rows=range(1))[0][1] for step in range(1, 31)]
        return [(first.target_ids.shape[1], second.target_ids.shape[1]) for first, second in drawn]

    assert all(first == second for first, second in areas(correlated=True))
    assert any(first != second for first, second in areas(correlated=False))


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
