"""Multi-block tubelet masks: which tokens the context encoder sees, and which the predictor must fill in."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vjepa2cli.errors import ConfigError
from vjepa2cli.tokens import TokenGrid

_MAX_DRAWS = 1000
_MIDPOINTS = tuple((index + 0.5) / 16 for index in range(16))
"""Where the expectation over a block's size is taken, along each of the three numbers that make it."""


class BlockShape(Protocol):
    """The numbers that shape one family of masks; `settings.MaskConfig` has them."""

    @property
    def num_blocks(self) -> int:
        """Blocks hidden in each clip."""

    @property
    def spatial_scale(self) -> tuple[float, float]:
        """Share of the frame that a block covers."""

    @property
    def temporal_scale(self) -> tuple[float, float]:
        """Share of the clip's length that a block covers."""

    @property
    def aspect_ratio(self) -> tuple[float, float]:
        """Height over width of a block."""

    @property
    def max_temporal_keep(self) -> float:
        """Share of the clip's length, from its start, that the context may use."""


@dataclass(frozen=True)
class MaskIds:
    """Flat token ids: `context_ids` [B, K] are kept, `target_ids` [B, M] are predicted; both ascend in each row."""

    context_ids: Tensor
    target_ids: Tensor


def sample_masks(
    batch_size: int, grid: TokenGrid, *, shape: BlockShape, generator: torch.Generator, sizes: torch.Generator | None = None
) -> MaskIds:
    """Draw one family of masks for a batch: one block size for all, positions drawn for each clip, rows cut to the shortest.

    Cutting keeps the first ids, so tokens that are cut belong to neither set; the larger the batch, the more of them.
    `generator` draws positions and, unless `sizes` does, the block size.
    Source: src/masks/multiseq_multiblock3d.py of facebookresearch/vjepa2.
    """
    block = _draw_block(grid, shape, generator if sizes is None else sizes)
    kept = [_draw_kept(grid, block, shape, generator) for _ in range(batch_size)]
    context = [torch.nonzero(row).flatten() for row in kept]
    target = [torch.nonzero(~row).flatten() for row in kept]
    return MaskIds(_cut_to_shortest(context), _cut_to_shortest(target))


def sample_fixed_masks(batch_size: int, grid: TokenGrid, *, shape: BlockShape, generator: torch.Generator) -> MaskIds:
    """Draw one family of masks of which every clip keeps the same number of tokens, whatever the batch: `kept_tokens`.

    Each clip draws blocks of its own size until enough is hidden; of the last one only as much is hidden as is missing, from one
    of its edges on. Every token that is not kept is predicted.
    """
    count = kept_tokens(grid, shape)
    kept = torch.stack([_draw_kept_exactly(grid, count, shape, generator) for _ in range(batch_size)])
    return MaskIds(torch.nonzero(kept)[:, 1].view(batch_size, -1), torch.nonzero(~kept)[:, 1].view(batch_size, -1))


def kept_tokens(grid: TokenGrid, shape: BlockShape) -> int:
    """Tokens that `sample_fixed_masks` keeps: the expected number that independent blocks leave, a whole number in each frame."""
    frames = _horizon(grid, shape)
    ranges = (shape.temporal_scale, shape.spatial_scale, shape.aspect_ratio)
    draws = itertools.product(*(_MIDPOINTS if low < high else _MIDPOINTS[:1] for low, high in ranges))
    shares = [_visible_share(grid, _block_size(grid, shape, *drawn), shape) for drawn in draws]
    expected = round(statistics.fmean(shares) * grid.num_tokens / frames)
    return frames * min(max(1, expected), max(1, grid.num_tokens // frames - 1))


def _visible_share(grid: TokenGrid, block: tuple[int, int, int], shape: BlockShape) -> float:
    """The expected share of the clip's tokens that no block covers."""
    t, h, w = (
        torch.tensor(
            [
                min(place, size - side) - max(place - side + 1, 0) + 1  # block positions that cover a place, of all there are
                for place in range(size)
            ],
            dtype=torch.float64,
        )
        / (size - side + 1)
        for size, side in zip((grid.t, grid.h, grid.w), block, strict=True)
    )
    visible = (1 - t[:, None, None] * h[None, :, None] * w) ** shape.num_blocks
    return float(visible[: _horizon(grid, shape)].sum() / grid.num_tokens)


def _horizon(grid: TokenGrid, shape: BlockShape) -> int:
    return max(1, int(grid.t * shape.max_temporal_keep))


def _draw_block(grid: TokenGrid, shape: BlockShape, generator: torch.Generator) -> tuple[int, int, int]:
    return _block_size(grid, shape, *torch.rand(3, generator=generator).tolist())


def _block_size(grid: TokenGrid, shape: BlockShape, temporal: float, spatial: float, aspect: float) -> tuple[int, int, int]:
    """Tubelets, rows and columns of the block that three numbers in [0, 1) stand for."""
    frames = max(1, int(grid.t * _between(shape.temporal_scale, temporal)))
    area = int(grid.tokens_per_frame * _between(shape.spatial_scale, spatial))
    ratio = _between(shape.aspect_ratio, aspect)
    height = min(grid.h, max(1, round(math.sqrt(area * ratio))))
    width = min(grid.w, max(1, round(math.sqrt(area / ratio))))
    return frames, height, width


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _place(grid: TokenGrid, block: tuple[int, int, int], generator: torch.Generator) -> tuple[slice, slice, slice]:
    """Where a block lies in a clip."""
    top, left, start = (
        int(torch.randint(0, size - side + 1, (1,), generator=generator))
        for size, side in zip((grid.h, grid.w, grid.t), (block[1], block[2], block[0]), strict=True)
    )
    return slice(start, start + block[0]), slice(top, top + block[1]), slice(left, left + block[2])


def _draw_kept(grid: TokenGrid, block: tuple[int, int, int], shape: BlockShape, generator: torch.Generator) -> Tensor:
    """Which tokens stay visible, [N] bool; drawn again until at least one does and one does not."""
    for _ in range(_MAX_DRAWS):
        kept = torch.ones(grid.t, grid.h, grid.w, dtype=torch.bool)
        kept[_horizon(grid, shape) :] = False
        for _ in range(shape.num_blocks):
            kept[_place(grid, block, generator)] = False
        if kept.any() and not kept.all():
            return kept.flatten()
    raise ConfigError(
        f"masks: {shape.num_blocks} blocks of {block[1]}x{block[2]} patches leave nothing of a {grid.h}x{grid.w} frame to see, "
        "or nothing to predict; lower masks.spatial_scale or masks.num_blocks, or use a larger crop"
    )


def _draw_kept_exactly(grid: TokenGrid, count: int, shape: BlockShape, generator: torch.Generator) -> Tensor:
    """Which `count` tokens stay visible, [N] bool."""
    block, horizon = _draw_block(grid, shape, generator), _horizon(grid, shape)
    if block[0] == grid.t and grid.t > 1:  # the same places in every frame, so one frame is drawn
        frame = TokenGrid(1, grid.h, grid.w)
        kept = _hide(frame, (1, *block[1:]), torch.ones(1, grid.h, grid.w, dtype=torch.bool), count // horizon, generator)
        kept = kept.repeat(grid.t, 1, 1)
        kept[horizon:] = False
        return kept.flatten()
    kept = torch.ones(grid.t, grid.h, grid.w, dtype=torch.bool)
    kept[horizon:] = False
    return _hide(grid, block, kept, count, generator).flatten()


def _hide(grid: TokenGrid, block: tuple[int, int, int], kept: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Hide blocks until `count` of the kept tokens [T, H, W] are left; the last one grows from an edge only as far as needed."""
    while (surplus := int(kept.sum()) - count) > 0:
        hidden = torch.zeros_like(kept)
        hidden[_place(grid, block, generator)] = True
        # Places in the order in which the edge would pass over them, a place's tubelets together.
        edge = int(torch.randint(4, (1,), generator=generator))
        ids = torch.arange(grid.num_tokens).view(grid.t, grid.h, grid.w).permute((1, 2, 0) if edge < 2 else (2, 1, 0))
        ids = (ids.flip(0) if edge % 2 else ids).flatten()
        fresh = ids[(kept & hidden).flatten()[ids]]
        kept.view(-1)[fresh[:surplus]] = False
    return kept


def _cut_to_shortest(rows: Sequence[Tensor]) -> Tensor:
    shortest = min(len(row) for row in rows)
    return torch.stack([row[:shortest] for row in rows])
