"""The V-JEPA 2.1 encoder: the V-JEPA 2 encoder with an image tokenizer, and features from four depths.

    clip [B, 3, F, Y, X]        or an image, [B, 3, 1, Y, X]
      | patch_embed             a clip; an image goes through patch_embed_img, one frame deep
      | + video_mod_embed       what kind of input this was; for an image img_mod_embed
      | keep                    a context encoder drops what is masked
      | blocks                  q and k turned by (t, row, column), rows and columns stretched to the grid of pretraining
      | norms_block.0 .. .3     after each quarter of the blocks, a norm of its own; there is no `norm`
    features [B, N or K, D]     the last level; `hierarchical` gives all four side by side, [B, N or K, 4 D]

Source: app/vjepa_2_1/models/vision_transformer.py of facebookresearch/vjepa2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.models.encoder import EncoderSpec, PatchEmbed
from vjepa2cli.models.layers import (
    Block,
    Rotary,
    RotaryVariant,
    initialise,
    interpolate_positions,
    modality_embed,
    rotary_table,
    run_block,
    token_positions,
)
from vjepa2cli.tokens import TokenGrid

NUM_LEVELS = 4


@dataclass(frozen=True)
class EncoderV21Spec(EncoderSpec):
    """The numbers that make a V-JEPA 2.1 encoder; what differs from V-JEPA 2 besides defaults is not a matter of numbers."""

    crop: int = 384
    num_frames: int = 64
    rotary: RotaryVariant = "interleaved"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1 or self.depth % NUM_LEVELS:
            raise InputError(f"encoder: depth: {self.depth} blocks do not split into {NUM_LEVELS} levels of V-JEPA 2.1")

    @property
    def level_layers(self) -> tuple[int, ...]:
        """The blocks (0 is the first) whose output is a level: the last of each quarter."""
        if self.depth == 48:
            return 11, 23, 37, 47  # the released ViT-G; a quarter would end at 35
        return tuple(self.depth * level // NUM_LEVELS - 1 for level in range(1, NUM_LEVELS + 1))


class EncoderV21(nn.Module):
    """Called like an Encoder; a clip of one frame is an image, which has a tokenizer of its own.

    Parameter names are the released ones.
    """

    def __init__(self, spec: EncoderV21Spec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False
        self.patch_embed = PatchEmbed(spec)
        self.patch_embed_img = PatchEmbed(replace(spec, tubelet_size=1))
        self.img_mod_embed, self.video_mod_embed = modality_embed(spec.embed_dim), modality_embed(spec.embed_dim)
        self.blocks = nn.ModuleList(Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.norms_block = nn.ModuleList(nn.LayerNorm(spec.embed_dim, eps=1e-6) for _ in range(NUM_LEVELS))
        initialise(self, self.blocks, generator)

    def forward(self, clip: Tensor, context_ids: Tensor | None = None) -> Tensor:
        """clip [B, 3, F, Y, X] or image [B, 3, 1, Y, X] -> [B, N, D]; with context_ids [B, K] int64 only those: [B, K, D]."""
        return self._levels(clip, context_ids)[-1]

    def hierarchical(self, clip: Tensor, context_ids: Tensor | None = None) -> Tensor:
        """The four levels side by side, the shallowest first, of the clip or of its context: [B, N or K, 4 D]."""
        return torch.cat(self._levels(clip, context_ids), dim=-1)

    def levels(self, clip: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the given blocks put out, each through the norm of its level: a list of [B, N, D].

        Only the blocks that end a level have a norm; 0 is the first block and -1 the last. Raises InputError for others.
        """
        depth, known = self.spec.depth, self.spec.level_layers
        unknown = [layer for layer in layers if layer not in known and layer + depth not in known]
        if unknown:
            raise InputError(f"layers: {unknown} end no level of this V-JEPA 2.1 encoder; give of {', '.join(map(str, known))}")
        outputs = dict(zip(known, self._levels(clip), strict=True))
        return [outputs[layer % depth] for layer in layers]

    def grid(self, clip: Tensor) -> TokenGrid:
        """The token grid of a clip [..., F, Y, X]; raises InputError where a side holds no whole patches or tubelets."""
        frames, height, width = clip.shape[-3:]
        tubelet_size = 1 if frames == 1 else self.spec.tubelet_size
        return TokenGrid.from_pixels(frames, height, width, patch_size=self.spec.patch_size, tubelet_size=tubelet_size)

    def _levels(self, clip: Tensor, context_ids: Tensor | None = None) -> list[Tensor]:
        """The normed output of every level, [B, N or K, D] each."""
        x, rotary = self._tokens(clip, context_ids)
        norms = dict(zip(self.spec.level_layers, self.norms_block, strict=True))
        outputs: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = run_block(block, x, rotary, checkpointing=self.activation_checkpointing)
            if index in norms:
                outputs.append(norms[index](x))
        return outputs

    def _tokens(self, clip: Tensor, context_ids: Tensor | None) -> tuple[Tensor, Rotary]:
        """The tokens that the blocks begin with, [B, N or K, D], and the angles of their places in the clip."""
        if clip.ndim != 5 or clip.shape[1] != self.spec.in_channels:
            raise InputError(
                f"clip: shape {list(clip.shape)} is not [B, {self.spec.in_channels}, F, Y, X]; stack clips first, and give an "
                "image as a clip of one frame"
            )
        grid = self.grid(clip)
        is_image = clip.shape[2] == 1
        embed, kind = (self.patch_embed_img, self.img_mod_embed) if is_image else (self.patch_embed, self.video_mod_embed)
        x: Tensor = embed(clip, context_ids) + kind
        every = torch.arange(grid.num_tokens, device=clip.device).unsqueeze(0)  # [1, N]
        ids = every if context_ids is None else context_ids
        positions = interpolate_positions(token_positions(ids, grid), grid)
        return x, rotary_table(positions, self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)
