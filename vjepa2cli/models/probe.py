"""The attentive probe: a few blocks and one cross-attention over frozen tokens, then a linear classifier for each query.

Source: Assran et al. 2025 (arXiv:2506.09985), appendix; src/models/attentive_pooler.py and
evals/action_anticipation_frozen/models.py of facebookresearch/vjepa2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vjepa2cli.models.layers import Block, Mlp, check_heads, initialise, rescale, run_block

# The released probes were built with LayerNorm's default, unlike the encoder and the predictors (1e-6).
_EPS = 1e-5


@dataclass(frozen=True)
class ProbeSpec:
    """The numbers that make a probe; `depth` counts the cross-attention block too, `eps` is that of its norms.

    A classifier of transformers computes with the eps and the heads of its encoder instead of those of the release.
    """

    embed_dim: int
    num_classes: int
    depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0
    eps: float = _EPS

    def __post_init__(self) -> None:
        check_heads("probe", self.embed_dim, self.num_heads)


@dataclass(frozen=True)
class AnticipationProbeSpec:
    """The numbers that make a probe of the next action; see `ProbeSpec`."""

    embed_dim: int
    num_verbs: int
    num_nouns: int
    num_actions: int
    depth: int = 4
    num_heads: int = 16
    mlp_ratio: float = 4.0
    eps: float = _EPS

    def __post_init__(self) -> None:
        check_heads("probe", self.embed_dim, self.num_heads)


class ActionLogits(NamedTuple):
    """Logits of the next action: verb [B, verbs], noun [B, nouns], and of both together, action [B, actions]."""

    verb: Tensor
    noun: Tensor
    action: Tensor


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

    def weights(self, queries: Tensor, x: Tensor) -> Tensor:
        """How much each query looks at each token, per head: queries [B, Q, D], x [B, N, D] -> [B, heads, Q, N]."""
        q = self.q(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = self.kv(x).chunk(2, dim=-1)[0].unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        weights: Tensor = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return weights


class CrossAttentionBlock(nn.Module):
    """Cross-attention and an MLP; the tokens are normed, the queries are not."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        """queries [B, Q, D], x [B, N, D] -> [B, Q, D]."""
        queries = queries + self.xattn(queries, self.norm1(x))
        out: Tensor = queries + self.mlp(self.norm2(queries))
        return out


class AttentivePooler(nn.Module):
    """Pool any number of tokens into one a query, in an order-free way: the probe has no positions of its own."""

    def __init__(self, spec: ProbeSpec | AnticipationProbeSpec, *, num_queries: int = 1) -> None:
        super().__init__()
        self.activation_checkpointing = False
        self.query_tokens = nn.Parameter(torch.zeros(1, num_queries, spec.embed_dim))
        self.blocks = nn.ModuleList(
            Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio, eps=spec.eps) for _ in range(spec.depth - 1)
        )
        self.cross_attention_block = CrossAttentionBlock(spec.embed_dim, spec.num_heads, spec.mlp_ratio, eps=spec.eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, queries, D]."""
        for block in self.blocks:
            x = run_block(block, x, checkpointing=self.activation_checkpointing)
        pooled: Tensor = self.cross_attention_block(self.query_tokens.expand(x.shape[0], -1, -1), x)
        return pooled

    def attention(self, x: Tensor) -> Tensor:
        """How much each query looks at each token, mean over heads: [B, N, D] -> [B, queries, N]."""
        for block in self.blocks:
            x = run_block(block, x, checkpointing=False)
        last = self.cross_attention_block
        weights: Tensor = last.xattn.weights(self.query_tokens.expand(x.shape[0], -1, -1), last.norm1(x))
        return weights.mean(dim=1)


class AttentiveProbe(nn.Module):
    """Classify frozen tokens."""

    def __init__(self, spec: ProbeSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.pooler = AttentivePooler(spec)
        self.linear = nn.Linear(spec.embed_dim, spec.num_classes)
        _initialise(self, self.pooler, generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, N, D] -> logits [B, classes]."""
        logits: Tensor = self.linear(self.pooler(tokens).squeeze(1))
        return logits


class AnticipationProbe(nn.Module):
    """Classify the action that comes next from frozen and predicted tokens: one query each for its verb, its noun and both.

    Parameter names are those of the released Epic-Kitchens probes.
    """

    def __init__(self, spec: AnticipationProbeSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.pooler = AttentivePooler(spec, num_queries=3)
        self.verb_classifier = nn.Linear(spec.embed_dim, spec.num_verbs)
        self.noun_classifier = nn.Linear(spec.embed_dim, spec.num_nouns)
        self.action_classifier = nn.Linear(spec.embed_dim, spec.num_actions)
        _initialise(self, self.pooler, generator)

    def forward(self, tokens: Tensor) -> ActionLogits:
        """tokens [B, N, D], of the encoder and then of its predictor -> three logits [B, classes]."""
        verb, noun, action = self.pooler(tokens).unbind(1)
        return ActionLogits(self.verb_classifier(verb), self.noun_classifier(noun), self.action_classifier(action))


def _initialise(probe: nn.Module, pooler: AttentivePooler, generator: torch.Generator | None) -> None:
    generator = generator or torch.Generator().manual_seed(0)
    initialise(probe, pooler.blocks, generator)
    rescale(pooler.cross_attention_block.mlp.fc2.weight, max(len(pooler.blocks), 1))
    if not pooler.query_tokens.is_meta:
        nn.init.trunc_normal_(pooler.query_tokens, std=0.02, generator=generator)
