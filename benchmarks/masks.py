"""What the two samplers of masks keep and predict: `python benchmarks/masks.py [--draws N]`. Tables for people, no test.

`shortest` is the released sampler, which cuts every mask of a draw to the shortest one; `fixed` keeps the same number of tokens
of every clip. Shares are of the tokens of a clip, averaged over draws; the spread is the standard deviation from draw to draw.
"""

import argparse
import statistics

import torch

from vjepa2cli.data.masking import MaskIds, sample_fixed_masks, sample_masks
from vjepa2cli.settings import MaskConfig
from vjepa2cli.tokens import TokenGrid

SAMPLERS = {"shortest": sample_masks, "fixed": sample_fixed_masks}
FAMILIES = {
    "8 blocks of .15": MaskConfig(),
    "2 blocks of .7": MaskConfig(num_blocks=2, spatial_scale=(0.7, 0.7)),
    "10 blocks of .15": MaskConfig(num_blocks=10),
}
GRIDS = {
    "16 frames, 256 px": (TokenGrid(8, 16, 16), ("8 blocks of .15", "2 blocks of .7")),
    "64 frames, 256 px": (TokenGrid(32, 16, 16), ("8 blocks of .15", "2 blocks of .7")),
    "64 frames, 384 px": (TokenGrid(32, 24, 24), ("8 blocks of .15", "2 blocks of .7")),
    "image, 256 px": (TokenGrid(1, 16, 16), ("10 blocks of .15",)),
}
HEADINGS = ("grid", "family", "sampler", "batch", "kept", "spread", "predicted", "in neither", "late")


def late_share(masks: MaskIds, grid: TokenGrid) -> float:
    """Of the kept tokens, the share in the last quarter of the clip; a quarter where time plays no part."""
    return float((masks.context_ids >= 3 * grid.num_tokens // 4).double().mean())


def main() -> None:
    """Print one line a grid, family, sampler and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=60)
    num_draws = parser.parse_args().draws
    print(" ".join(f"{heading:>17}" for heading in HEADINGS))
    for place, (grid, families) in GRIDS.items():
        for family in families:
            for name, sample in SAMPLERS.items():
                for batch in (1, 24):
                    draws = [
                        sample(batch, grid, shape=FAMILIES[family], generator=torch.Generator().manual_seed(seed))
                        for seed in range(num_draws)
                    ]
                    kept = [ids.context_ids.shape[1] / grid.num_tokens for ids in draws]
                    predicted = statistics.fmean(ids.target_ids.shape[1] / grid.num_tokens for ids in draws)
                    late = statistics.fmean(late_share(ids, grid) for ids in draws) if grid.t > 3 else None
                    mean = statistics.fmean(kept)
                    figures = (mean, statistics.pstdev(kept), predicted, 1 - mean - predicted)
                    cells = [place, family, name, str(batch), *(f"{figure:.1%}" for figure in figures)]
                    cells.append("" if late is None else f"{late:.1%}")
                    print(" ".join(f"{cell:>17}" for cell in cells))


if __name__ == "__main__":
    main()
