"""The V-JEPA 2 encoder: a clip is cut into tubelets, and a vision transformer reads them.

    clip [B, 3, F, Y, X]        F frames of Y x X pixels, RGB, normalised
      | patch_embed             each tubelet (2 frames x 16 x 16 pixels) becomes one token
    tokens [B, N, D]            N = T * H * W, columns fastest and time slowest
      | keep                    a context encoder drops what is masked: [B, K, D]
      | blocks                  attention that knows where a token lies by turning q and k by its (t, row, column)
      | norm
    features [B, N or K, D]

There is no class token and no learnt position. A place enters only by the rotary angles, which are computed from the ids of the
tokens at hand; so a masked clip, a wider frame or a longer clip needs nothing but its own ids.

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; src/models/vision_transformer.py of facebookresearch/vjepa2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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

    def forward(self, clip: Tensor, ids: Tensor | None = None) -> Tensor:
        """[B, 3, F, Y, X] -> [B, N, D], columns fastest and time slowest; with ids [B, K] those tokens only: [B, K, D].

        Tubelets do not overlap, so the convolution is one matrix product, which on a CPU takes a fraction of its time, and a
        masked encoder pays for what it keeps.
        """
        depth, side = self.proj.kernel_size[0], self.proj.kernel_size[1]
        frames, rows, columns = (size // part for size, part in zip(clip.shape[2:], (depth, side, side), strict=True))
        cut = clip.reshape(*clip.shape[:2], frames, depth, rows, side, columns, side)  # [B, 3, T, t, H, p, W, p]
        tubelets = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # [B, N, 3 t p p]
        if ids is not None:
            tubelets = keep(tubelets, ids)
        weight = self.proj.weight.flatten(1)
        return F.linear(tubelets.to(weight.dtype), weight, self.proj.bias)


class Encoder(nn.Module):
    """Turn a clip into features, of all its tubelets or only of those that a mask keeps.

    The same network is the context encoder, which sees only what is kept, and, as a moving average of that, the target encoder,
    which sees it all. `activation_checkpointing` trades time for memory in training. Parameter names are the released ones.
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
        """clip [B, 3, F, Y, X], float and normalised -> [B, N, D]; with context_ids [B, K] int64 only those: [B, K, D]."""
        x, rotary = self._tokens(clip, context_ids)
        for block in self.blocks:
            x = run_block(block, x, rotary, checkpointing=self.activation_checkpointing)
        features: Tensor = self.norm(x)
        return features

    def levels(self, clip: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the given blocks put out (0 is the first, -1 the last), each through the final norm: a list of [B, N, D]."""
        depth = self.spec.depth
        unknown = [layer for layer in layers if not -depth <= layer < depth]
        if unknown:
            raise InputError(f"layers: {unknown} are not blocks of an encoder of depth {depth}; give 0 to {depth - 1}")
        x, rotary = self._tokens(clip)
        outputs: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = run_block(block, x, rotary, checkpointing=self.activation_checkpointing)
            if index in layers or index - depth in layers:
                outputs[index] = self.norm(x)
        return [outputs[layer % depth] for layer in layers]

    def grid(self, clip: Tensor) -> TokenGrid:
        """The token grid of a clip [..., F, Y, X]; raises InputError where a side holds no whole patches or tubelets."""
        frames, height, width = clip.shape[-3:]
        return TokenGrid.from_pixels(frames, height, width, patch_size=self.spec.patch_size, tubelet_size=self.spec.tubelet_size)

    def _tokens(self, clip: Tensor, context_ids: Tensor | None = None) -> tuple[Tensor, Rotary]:
        """The tokens that the blocks begin with, [B, N or K, D], and the angles of their places in the clip.

        What is masked is dropped here, before the first block: no kept token ever sees it, and the cost is that of K tokens.
        """
        if clip.ndim != 5 or clip.shape[1] != self.spec.in_channels:
            raise InputError(f"clip: shape {list(clip.shape)} is not [B, {self.spec.in_channels}, F, Y, X]; stack clips first")
        grid = self.grid(clip)
        x: Tensor = self.patch_embed(clip, context_ids)
        every = torch.arange(grid.num_tokens, device=clip.device).unsqueeze(0)  # [1, N]
        ids = every if context_ids is None else context_ids
        rotary = rotary_table(token_positions(ids, grid), self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)
        return x, rotary


def keep(x: Tensor, ids: Tensor) -> Tensor:
    """The tokens of the given ids: x [B, N, D], ids [B, K] -> [B, K, D]; raises InputError for rows that fit no clip."""
    if ids.ndim != 2 or len(ids) != len(x):
        raise InputError(f"context_ids: shape {list(ids.shape)} is not [{len(x)}, K], one row of ids a clip")
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
