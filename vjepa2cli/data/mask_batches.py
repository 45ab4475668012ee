"""Masks as a function of (seed, step): which rows of a batch share a draw, whoever asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vjepa2cli.data.batches import mix_seed
from vjepa2cli.data.masking import BlockShape, MaskIds, sample_fixed_masks, sample_masks
from vjepa2cli.tokens import TokenGrid

_FAMILIES, _GROUPS = 256, 256


@dataclass(frozen=True)
class MaskBatches:
    """The masks of one kind of clip: `shapes` are its families, `group` its number among the kinds in a batch.

    `rows_per_draw` rows of the global batch (None: all `batch_size`) share a block size and a number of kept tokens; see
    `sample_masks` and `sample_fixed_masks` for the two ways to keep. `correlated` repeats the released code: every draw (there:
    every process) begins with the same seeds, and every family takes its block sizes from the same numbers.
    """

    grid: TokenGrid
    shapes: Sequence[BlockShape]
    batch_size: int
    seed: int
    group: int = 0
    kept: Literal["shortest", "fixed"] = "shortest"
    rows_per_draw: int | None = None
    correlated: bool = False

    def draws(self, step: int, *, rows: range) -> list[tuple[range, list[MaskIds]]]:
        """The masks of these rows of a step's batch: for each draw that they touch its rows, and ids for each family."""
        size = self.rows_per_draw or self.batch_size
        drawn = []
        for draw in range(rows.start // size, -(-rows.stop // size)):
            touched = range(max(rows.start, draw * size), min(rows.stop, (draw + 1) * size))
            chosen = slice(touched.start - draw * size, touched.stop - draw * size)
            count = min(size, self.batch_size - draw * size)
            families = [self._family(step, draw, family, count) for family in range(len(self.shapes))]
            drawn.append((touched, [MaskIds(ids.context_ids[chosen], ids.target_ids[chosen]) for ids in families]))
        return drawn

    def _family(self, step: int, draw: int, family: int, count: int) -> MaskIds:
        stream = family + _FAMILIES * (self.group + (0 if self.correlated else _GROUPS * draw))
        positions = torch.Generator().manual_seed(mix_seed(self.seed, step, stream))
        if self.kept == "fixed":
            return sample_fixed_masks(count, self.grid, shape=self.shapes[family], generator=positions)
        sizes = torch.Generator().manual_seed(step - 1) if self.correlated else None
        return sample_masks(count, self.grid, shape=self.shapes[family], generator=positions, sizes=sizes)
