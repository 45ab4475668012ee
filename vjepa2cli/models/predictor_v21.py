"""The V-JEPA 2.1 predictor: it reads several levels of the encoder at once, and predicts the context as well as the targets.

Rows and columns are stretched to the grid of pretraining, as in the released training; the hub code of the release leaves that
out of the predictor (`interpolate_rope` in src/hub/backbones.py), which makes no difference at 256 pixels.

Source: app/vjepa_2_1/models/predictor.py of facebookresearch/vjepa2.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.models.layers import (
    Block,
    RotaryVariant,
    check_heads,
    initialise,
    interpolate_positions,
    modality_embed,
    rotary_table,
    run_block,
    token_positions,
)
from vjepa2cli.tokens import TokenGrid

Modality = Literal["video", "image"]


@dataclass(frozen=True)
class PredictorV21Spec:
    """The numbers that make a V-JEPA 2.1 predictor; `encoder_dim` and `target_dim` are the widths of one level.

    It reads `num_levels` levels of its encoder and predicts as many of the teacher's. The released ViT-g and ViT-G have four
    levels and teach themselves; the distilled ViT-B and ViT-L read and predict the last level alone, that of a ViT-G.
    """

    encoder_dim: int
    target_dim: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_mask_tokens: int = 2
    num_levels: int = 4
    rotary: RotaryVariant = "interleaved"
    inference_mask_index: int = 0

    def __post_init__(self) -> None:
        check_heads("predictor", self.embed_dim, self.num_heads)


class PredictorV21(nn.Module):
    """Called like a Predictor; tokens are told whether they are of a video or of an image.

    Parameter names are the released ones.
    """

    def __init__(self, spec: PredictorV21Spec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False
        self.predictor_embed = _embed(spec)
        self.mask_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, spec.embed_dim)) for _ in range(spec.num_mask_tokens))
        self.img_mod_embed, self.video_mod_embed = modality_embed(spec.embed_dim), modality_embed(spec.embed_dim)
        self.predictor_blocks = nn.ModuleList(Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.predictor_norm = nn.LayerNorm(spec.embed_dim, eps=1e-6)
        self.predictor_proj = nn.Linear(spec.embed_dim, spec.num_levels * spec.target_dim)
        self.predictor_proj_context = nn.Linear(spec.embed_dim, spec.num_levels * spec.target_dim)
        initialise(self, self.predictor_blocks, generator)

    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: TokenGrid,
        mask_index: int = 0,
        modality: Modality = "video",
        return_context: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """context [B, K, L D] at context_ids [B, K], target_ids [B, Nt] -> predictions [B, Nt, L D'], in the order of target_ids.

        L is the number of levels, D the width of a level of the encoder, D' of the teacher. `context` is what
        `EncoderV21.hierarchical` gives, or for one level the encoder itself. `mask_index`: see `Predictor`. With
        `return_context` what is predicted of the context tokens, [B, K, L D'], comes second.
        """
        if not 0 <= mask_index < self.spec.num_mask_tokens:
            raise InputError(f"mask_index: {mask_index} is not one of the {self.spec.num_mask_tokens} mask tokens (from 0)")
        if context.shape[-1] != self.spec.num_levels * self.spec.encoder_dim:
            raise InputError(
                f"context: {context.shape[-1]} channels are not {self.spec.num_levels} x {self.spec.encoder_dim}; a predictor of "
                "four levels reads encoder.hierarchical(clip, context_ids), one of one level encoder(clip, context_ids)"
            )
        num_context = context.shape[1]
        mask_tokens = self.mask_tokens[mask_index].expand(*target_ids.shape, -1)  # [B, Nt, P]
        x = torch.cat((self.predictor_embed(context), mask_tokens), dim=1)
        x = x + (self.img_mod_embed if modality == "image" else self.video_mod_embed)
        positions = interpolate_positions(token_positions(torch.cat((context_ids, target_ids), dim=1), grid), grid)
        rotary = rotary_table(positions, self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)
        for block in self.predictor_blocks:
            x = run_block(block, x, rotary, checkpointing=self.activation_checkpointing)
        x = self.predictor_norm(x)
        targets: Tensor = self.predictor_proj(x[:, num_context:])
        return (targets, self.predictor_proj_context(x[:, :num_context])) if return_context else targets


def _embed(spec: PredictorV21Spec) -> nn.Module:
    """From the encoder's channels to the predictor's; several levels are mixed at the width of one first."""
    if spec.num_levels == 1:
        return nn.Linear(spec.encoder_dim, spec.embed_dim)
    mixed = nn.Linear(spec.num_levels * spec.encoder_dim, spec.encoder_dim)
    return nn.Sequential(mixed, nn.GELU(), nn.Linear(spec.encoder_dim, spec.embed_dim))
