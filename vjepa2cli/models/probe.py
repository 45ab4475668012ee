"""The attentive probe: a few blocks and one cross-attention over frozen tokens, then a linear classifier.

Source: Assran et al. 2025 (arXiv:2506.09985), appendix; src/models/attentive_pooler.py of facebookresearch/vjepa2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vjepa2cli.models.layers import Block, Mlp, check_heads, initialise, rescale, run_block

# The released probes were built with LayerNorm's default, unlike the encoder and the predictors (1e-6).
_EPS = 1e-5


@dataclass(frozen=True)
class ProbeSpec:
    """The numbers that make a probe; `depth` counts the cross-attention block too."""

    embed_dim: int
    num_classes: int
    depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        check_heads("probe", self.embed_dim, self.num_heads)


class CrossAttention(nn.Module):
    """Queries look at tokens; there is no output projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """queries [B, Q, D], x [B, N, D] -> [B, Q, D]."""
        q = self.q(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class CrossAttentionBlock(nn.Module):
    """Cross-attention and an MLP; the tokens are normed, the queries are not."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """queries [B, Q, D], x [B, N, D] -> [B, Q, D]."""
        queries = queries + self.xattn(queries, self.norm1(x))
        out: Tensor = queries + self.mlp(self.norm2(queries))
        return out


class AttentivePooler(nn.Module):
    """Pool any number of tokens into one, in an order-free way: the probe has no positions of its own."""

    def __init__(self, spec: ProbeSpec) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, spec.embed_dim))
        self.blocks = nn.ModuleList(
            Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio, eps=_EPS) for _ in range(spec.depth - 1)
        )
        self.cross_attention_block = CrossAttentionBlock(spec.embed_dim, spec.num_heads, spec.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, 1, D]."""
        for block in self.blocks:
            x = run_block(block, x, checkpointing=self.activation_checkpointing)
        pooled: Tensor = self.cross_attention_block(self.query_tokens.expand(x.shape[0], -1, -1), x)
        return pooled


class AttentiveProbe(nn.Module):
    """Classify frozen tokens."""

    def __init__(self, spec: ProbeSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.pooler = AttentivePooler(spec)
        self.linear = nn.Linear(spec.embed_dim, spec.num_classes)
        generator = generator or torch.Generator().manual_seed(0)
        initialise(self, self.pooler.blocks, generator)
        rescale(self.pooler.cross_attention_block.mlp.fc2.weight, max(spec.depth - 1, 1))
        if not self.pooler.query_tokens.is_meta:
            nn.init.trunc_normal_(self.pooler.query_tokens, std=0.02, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, N, D] -> logits [B, classes]."""
        logits: Tensor = self.linear(self.pooler(tokens).squeeze(1))
        return logits
