"""The baseline that learns nothing: tokens that are averages of pixels, so that a probe or a planner can be compared with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.tokens import TokenGrid


@dataclass(frozen=True)
class PixelSpec:
    """How pixels become tokens: each patch of each frame of a tubelet is averaged over blocks x blocks squares."""

    patch_size: int = 16
    tubelet_size: int = 2
    blocks: int = 4
    in_channels: int = 3
    crop: int = 256
    num_frames: int = 16

    def __post_init__(self) -> None:
        if self.patch_size % self.blocks:
            raise InputError(f"pixels: a patch of {self.patch_size} pixels does not split into {self.blocks} squares a side")

    @property
    def embed_dim(self) -> int:
        """Width of a token: tubelet x blocks x blocks x channels."""
        return self.tubelet_size * self.blocks**2 * self.in_channels


class PixelEncoder(nn.Module):
    """Called like an Encoder, without a parameter; its tokens are not to be layer-normed, which would hide the brightness."""

    layer_norm = False

    def __init__(self, spec: PixelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False

    def forward(self, clip: Tensor, context_ids: Tensor | None = None) -> Tensor:
        """clip [B, 3, F, Y, X] -> [B, N, D]; with context_ids [B, K] those tokens only."""
        spec, grid, (batch, channels) = self.spec, self.grid(clip), clip.shape[:2]
        cell = spec.patch_size // spec.blocks
        means = F.avg_pool3d(clip, (1, cell, cell))  # [B, C, F, Y / cell, X / cell]
        cells = means.reshape(batch, channels, grid.t, spec.tubelet_size, grid.h, spec.blocks, grid.w, spec.blocks)
        tokens = cells.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, grid.num_tokens, spec.embed_dim)
        if context_ids is not None:
            tokens = tokens.gather(1, context_ids.unsqueeze(-1).expand(-1, -1, spec.embed_dim))
        return tokens

    def levels(self, clip: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The same tokens once for every layer asked for: pixels have no depth."""
        tokens = self(clip)
        return [tokens for _ in layers]

    def grid(self, clip: Tensor) -> TokenGrid:
        """The token grid of a clip [..., F, Y, X]; raises InputError where a side holds no whole patches or tubelets."""
        frames, height, width = clip.shape[-3:]
        return TokenGrid.from_pixels(frames, height, width, patch_size=self.spec.patch_size, tubelet_size=self.spec.tubelet_size)
