"""Multi-block tubelet masks: which tokens the context encoder sees, and which the predictor must fill in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vjepa2cli.errors import ConfigError
from vjepa2cli.tokens import TokenGrid

_MAX_DRAWS = 1000


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


def sample_masks(batch_size: int, grid: TokenGrid, *, shape: BlockShape, generator: torch.Generator) -> MaskIds:
    """Draw one family of masks for a batch: one block size for all, positions drawn for each clip, rows cut to the shortest.

    Cutting keeps the first ids, so tokens that are cut belong to neither set.
    Source: src/masks/multiseq_multiblock3d.py of facebookresearch/vjepa2.
    """
    block = _draw_block(grid, shape, generator)
    kept = [_draw_kept(grid, block, shape, generator) for _ in range(batch_size)]
    context = [torch.nonzero(row).flatten() for row in kept]
    target = [torch.nonzero(~row).flatten() for row in kept]
    return MaskIds(_cut_to_shortest(context), _cut_to_shortest(target))


def _draw_block(grid: TokenGrid, shape: BlockShape, generator: torch.Generator) -> tuple[int, int, int]:
    temporal, spatial, aspect = torch.rand(3, generator=generator).tolist()
    frames = max(1, int(grid.t * _between(shape.temporal_scale, temporal)))
    area = int(grid.tokens_per_frame * _between(shape.spatial_scale, spatial))
    ratio = _between(shape.aspect_ratio, aspect)
    height = min(grid.h, max(1, round(math.sqrt(area * ratio))))
    width = min(grid.w, max(1, round(math.sqrt(area / ratio))))
    return frames, height, width


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _draw_kept(grid: TokenGrid, block: tuple[int, int, int], shape: BlockShape, generator: torch.Generator) -> Tensor:
    """Which tokens stay visible, [N] bool; drawn again until at least one does and one does not."""
    horizon = max(1, int(grid.t * shape.max_temporal_keep))
    for _ in range(_MAX_DRAWS):
        kept = torch.ones(grid.t, grid.h, grid.w, dtype=torch.bool)
        kept[horizon:] = False
        for _ in range(shape.num_blocks):
            corner = [
                int(torch.randint(0, size - side + 1, (1,), generator=generator))
                for size, side in zip((grid.h, grid.w, grid.t), (block[1], block[2], block[0]), strict=True)
            ]
            top, left, start = corner
            kept[start : start + block[0], top : top + block[1], left : left + block[2]] = False
        if kept.any() and not kept.all():
            return kept.flatten()
    raise ConfigError(
        f"masks: {shape.num_blocks} blocks of {block[1]}x{block[2]} patches leave nothing of a {grid.h}x{grid.w} frame to see, "
        "or nothing to predict; lower masks.spatial_scale or masks.num_blocks, or use a larger crop"
    )


def _cut_to_shortest(rows: Sequence[Tensor]) -> Tensor:
    shortest = min(len(row) for row in rows)
    return torch.stack([row[:shortest] for row in rows])
