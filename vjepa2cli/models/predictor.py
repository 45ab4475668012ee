"""The pretraining predictor: a narrow transformer that fills in the tokens that the context encoder did not see.

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; src/models/predictor.py of facebookresearch/vjepa2.
"""

from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.models.layers import Block, RotaryVariant, check_heads, initialise, rotary_table, run_block, token_positions
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.tokens import TokenGrid

_RELEASED_MASK_TOKENS = (10, 8)
"""How many mask tokens the released predictors of V-JEPA 2 and of 2.1 have; nothing else tells them from others in a file."""


@dataclass(frozen=True)
class PredictorSpec:
    """The numbers that make a predictor between encoder tokens of width `encoder_dim`; see `inference_mask_index`."""

    encoder_dim: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_mask_tokens: int = 2
    rotary: RotaryVariant = "tiled"
    inference_mask_index: int = 0

    def __post_init__(self) -> None:
        check_heads("predictor", self.embed_dim, self.num_heads)


class Predictor(nn.Module):
    """Predict target tokens from context tokens and from where both lie; context and targets all see each other."""

    def __init__(self, spec: PredictorSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False
        self.predictor_embed = nn.Linear(spec.encoder_dim, spec.embed_dim)
        self.mask_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, spec.embed_dim)) for _ in range(spec.num_mask_tokens))
        self.predictor_blocks = nn.ModuleList(Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.predictor_norm = nn.LayerNorm(spec.embed_dim, eps=1e-6)
        self.predictor_proj = nn.Linear(spec.embed_dim, spec.encoder_dim)
        initialise(self, self.predictor_blocks, generator)

    @overload
    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: TokenGrid,
        mask_index: int = 0,
        return_context: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: TokenGrid,
        mask_index: int = 0,
        return_context: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        context: Tensor,
        context_ids: Tensor,
        target_ids: Tensor,
        *,
        grid: TokenGrid,
        mask_index: int = 0,
        return_context: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """context [B, K, D] at context_ids [B, K], target_ids [B, Nt] int64 -> predictions [B, Nt, D] in the order of target_ids.

        `mask_index` picks the learnt token that stands for what is to be predicted; see `inference_mask_index`. With
        `return_context` what became of the context tokens, [B, K, D], comes second.
        Target tokens attend to each other, so asking for fewer of them changes the rest.
        """
        if not 0 <= mask_index < self.spec.num_mask_tokens:
            raise InputError(f"mask_index: {mask_index} is not one of the {self.spec.num_mask_tokens} mask tokens (from 0)")
        num_context = context.shape[1]
        x = self.predictor_embed(context)
        mask_tokens = self.mask_tokens[mask_index].expand(*target_ids.shape, -1)  # [B, Nt, P]
        x = torch.cat((x, mask_tokens), dim=1)
        positions = token_positions(torch.cat((context_ids, target_ids), dim=1), grid)
        rotary = rotary_table(positions, self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)
        for block in self.predictor_blocks:
            x = run_block(block, x, rotary, checkpointing=self.activation_checkpointing)
        x = x if return_context else x[:, num_context:]
        x = self.predictor_proj(self.predictor_norm(x))
        return (x[:, num_context:], x[:, :num_context]) if return_context else x


def inference_mask_index(predictor: Predictor | PredictorV21) -> int:
    """The `mask_index` to call a predictor with at inference.

    It is 1 for the released predictors, as in every released evaluation and in transformers, and 0 for those trained here, whose
    first mask token is that of the first family of masks.
    """
    return predictor.spec.inference_mask_index


def mask_index_of_file(num_mask_tokens: int) -> int:
    """The mask index at inference of a predictor whose file has no record of ours: told by the number of its mask tokens."""
    return 1 if num_mask_tokens in _RELEASED_MASK_TOKENS else 0
