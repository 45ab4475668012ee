"""The V-JEPA 2 encoder: a clip becomes tubelet tokens, and a vision transformer with 3-D rotary positions reads them.

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; src/models/vision_transformer.py of facebookresearch/vjepa2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.models.layers import (
    Block,
    Rotary,
    RotaryVariant,
    check_heads,
    initialise,
    rotary_table,
    run_block,
    token_positions,
)
from vjepa2cli.tokens import TokenGrid


@dataclass(frozen=True)
class EncoderSpec:
    """The numbers that make an encoder; `crop` and `num_frames` are the clip it was trained on, not a limit."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    tubelet_size: int = 2
    in_channels: int = 3
    crop: int = 256
    num_frames: int = 16
    rotary: RotaryVariant = "tiled"

    def __post_init__(self) -> None:
        check_heads("encoder", self.embed_dim, self.num_heads)


class PatchEmbed(nn.Module):
    """Cut a clip into tubelets and project each to one token."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        tubelet = (spec.tubelet_size, spec.patch_size, spec.patch_size)
        self.proj = nn.Conv3d(spec.in_channels, spec.embed_dim, kernel_size=tubelet, stride=tubelet)

    def forward(self, clip: Tensor) -> Tensor:
        """[B, 3, F, Y, X] -> [B, N, D], columns fastest and time slowest."""
        tokens: Tensor = self.proj(clip)  # [B, D, T, H, W]
        return tokens.flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """Turn a clip into tokens, all of them or only those a mask keeps.

    The same network is the context encoder (it sees only the kept tubelets) and, as a moving average of itself, the target
    encoder (it sees them all). Parameter names are the released ones.
    """

    def __init__(self, spec: EncoderSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False
        self.patch_embed = PatchEmbed(spec)
        self.blocks = nn.ModuleList(Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.embed_dim, eps=1e-6)
        initialise(self, self.blocks, generator)

    def forward(self, clip: Tensor, context_ids: Tensor | None = None) -> Tensor:
        """clip [B, 3, F, Y, X], float and normalised -> [B, N, D]; with context_ids [B, K] int64, those tokens only: [B, K, D].

        What is masked is dropped before the first block, so no kept token has seen it. A kept token keeps its place in the clip.
        """
        x, rotary = self._embed(clip, context_ids)
        for block in self.blocks:
            x = run_block(block, x, rotary, None, checkpointing=self.activation_checkpointing)
        features: Tensor = self.norm(x)
        return features

    def levels(self, clip: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the given blocks put out (0 is the first, -1 the last), each through the final norm: a list of [B, N, D]."""
        depth = self.spec.depth
        unknown = [layer for layer in layers if not -depth <= layer < depth]
        if unknown:
            raise InputError(f"layers: {unknown} are not blocks of an encoder of depth {depth}; give 0 to {depth - 1}")
        x, rotary = self._embed(clip, None)
        outputs: list[Tensor] = []
        for block in self.blocks:
            x = run_block(block, x, rotary, None, checkpointing=self.activation_checkpointing)
            outputs.append(x)
        return [self.norm(outputs[layer]) for layer in layers]

    def grid(self, clip: Tensor) -> TokenGrid:
        """The token grid of a clip [..., F, Y, X]; raises InputError where a side holds no whole patches or tubelets."""
        frames, height, width = clip.shape[-3:]
        return TokenGrid.from_pixels(frames, height, width, patch_size=self.spec.patch_size, tubelet_size=self.spec.tubelet_size)

    def _embed(self, clip: Tensor, context_ids: Tensor | None) -> tuple[Tensor, Rotary]:
        """Tokens to begin with, [B, N or K, D], and the angles of their positions."""
        if clip.ndim != 5 or clip.shape[1] != self.spec.in_channels:
            raise InputError(f"clip: shape {list(clip.shape)} is not [B, {self.spec.in_channels}, F, Y, X]; stack clips first")
        grid = self.grid(clip)
        x: Tensor = self.patch_embed(clip)
        ids = torch.arange(grid.num_tokens, device=clip.device).unsqueeze(0)  # [1, N]
        if context_ids is not None:
            x = x.gather(1, context_ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            ids = context_ids
        positions = token_positions(ids, grid)
        return x, rotary_table(positions, self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)
