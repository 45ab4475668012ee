"""Many attentive probes of one shape on the same tokens, computed together as one network.

Two things make them cheap. What all heads share is computed once: the tokens are normed for all of them, and the first map of
every head is one matrix product. And a probe asks few questions: keys and values of all tokens are never made, since

    q . (Wk x + bk) = (Wk^T q) . x + const      and      sum_n a_n (Wv x_n + bv) = Wv (sum_n a_n x_n) + bv,

so that the last block costs as many dot products a token as there are queries times attention heads, and not 2 D. A norm's scale
and shift fall into the same places, because a softmax does not see what all keys have in common and its weights sum to one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vjepa2cli.models.attention import attend
from vjepa2cli.models.probe import AnticipationProbe, AttentiveProbe

Probe = AttentiveProbe | AnticipationProbe


class _Map(NamedTuple):
    """A linear map of every head: weight [K, out, in], bias [K, out]."""

    weight: Tensor
    bias: Tensor


class ProbeSweep(nn.Module):
    """Probes that share their tokens; `heads` are ordinary probes, so that any of them can be saved alone."""

    def __init__(self, heads: Sequence[Probe]) -> None:
        """The heads must be of one shape."""
        super().__init__()
        assert len({head.spec for head in heads}) == 1
        self.heads = nn.ModuleList(heads)
        self.spec = heads[0].spec
        self.activation_checkpointing = False
        self._chosen: list[int] = []

    def forward(self, tokens: Tensor, chosen: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """tokens [B, N, D] -> logits [K, B, classes], one tensor a classifier: one, or those of verb, noun and action.

        With `chosen` numbers of heads only those are computed.
        """
        self._chosen = list(range(len(self.heads)) if chosen is None else chosen)
        x: Tensor = tokens
        for index in range(self.spec.depth - 1):
            recompute = self.activation_checkpointing and torch.is_grad_enabled()
            x = checkpoint(self._block, x, index, use_reentrant=False) if recompute else self._block(x, index)
        pooled = self._pool(x)  # [K, B, queries, D]
        names = ("linear",) if isinstance(self.heads[0], AttentiveProbe) else _ACTION_CLASSIFIERS
        return tuple(_apply(pooled[:, :, query], self._map(name)) for query, name in enumerate(names))

    def _block(self, x: Tensor, index: int) -> Tensor:
        """One self-attention block: [B, N, D], or [K, B, N, D] once the heads differ -> [K, B, N, D]."""
        name = f"pooler.blocks.{index}"
        num_heads = self.spec.num_heads
        qkv = self._normed(x, f"{name}.norm1", f"{name}.attn.qkv")
        split = qkv.reshape(-1, qkv.shape[2], 3, num_heads, self.spec.embed_dim // num_heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # [K * B, heads, N, head_dim]
        mixed = attend(q, k, v).transpose(1, 2).reshape(*qkv.shape[:3], -1)
        x = x + _apply(mixed, self._map(f"{name}.attn.proj"))
        hidden = F.gelu(self._normed(x, f"{name}.norm2", f"{name}.mlp.fc1"))
        return x + _apply(hidden, self._map(f"{name}.mlp.fc2"))

    def _pool(self, x: Tensor) -> Tensor:
        """The cross-attention block: [B, N, D] or [K, B, N, D] -> [K, B, queries, D]."""
        name, num_heads = "pooler.cross_attention_block", self.spec.num_heads
        queries = self._stacked("pooler.query_tokens").squeeze(1)  # [K, queries, D]
        weight, bias = self._map(f"{name}.xattn.kv")
        count, dim = len(weight), weight.shape[2]
        q = _apply(queries, self._map(f"{name}.xattn.q")).reshape(count, -1, num_heads, dim // num_heads)
        keys, values = weight.reshape(count, 2, num_heads, -1, dim).unbind(1)  # [K, heads, head_dim, D]
        scale, shift = self._stacked(f"{name}.norm1.weight"), self._stacked(f"{name}.norm1.bias")
        asked = torch.einsum("kqhe,khed->kqhd", q, keys) * scale[:, None, None] * q.shape[-1] ** -0.5
        asked = asked.flatten(1, 2)  # [K, queries * heads, D]
        plain = self._plain_norm(x)
        if plain.ndim == 3:
            scores = F.linear(plain, asked.flatten(0, 1)).transpose(1, 2)  # [B, K * queries * heads, N]
            seen = (scores.float().softmax(-1).to(plain.dtype) @ plain).reshape(-1, *asked.shape).transpose(0, 1)
        else:
            scores = plain @ asked.transpose(1, 2).unsqueeze(1)  # [K, B, N, queries * heads]
            seen = scores.float().softmax(-2).to(plain.dtype).transpose(2, 3) @ plain
        seen = seen * scale[:, None, None] + shift[:, None, None]
        seen = seen.reshape(*seen.shape[:2], -1, num_heads, dim)  # [K, B, queries, heads, D]
        found = torch.einsum("kbqhd,khed->kbqhe", seen, values).flatten(3) + bias.chunk(2, dim=-1)[1][:, None, None]
        pooled = queries.unsqueeze(1) + found
        hidden = F.gelu(self._normed(pooled, f"{name}.norm2", f"{name}.mlp.fc1"))
        return pooled + _apply(hidden, self._map(f"{name}.mlp.fc2"))

    def _normed(self, x: Tensor, norm: str, linear: str) -> Tensor:
        """A norm and the linear map after it; tokens that the heads share are normed once and mapped by one product."""
        scale, shift = self._stacked(f"{norm}.weight"), self._stacked(f"{norm}.bias")
        weight, bias = self._map(linear)
        plain = self._plain_norm(x)
        if plain.ndim > 3:
            shape = (-1, *[1] * (plain.ndim - 2), plain.shape[-1])
            return _apply(plain * scale.view(shape) + shift.view(shape), _Map(weight, bias))
        folded = weight * scale[:, None]  # [K, out, D]
        moved = bias + torch.einsum("kod,kd->ko", weight, shift)
        out = F.linear(plain, folded.flatten(0, 1), moved.flatten())  # [B, N, K * out]
        return out.reshape(*out.shape[:-1], *folded.shape[:2]).movedim(-2, 0)

    def _plain_norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=self.spec.eps)

    def _map(self, name: str) -> _Map:
        return _Map(self._stacked(f"{name}.weight"), self._stacked(f"{name}.bias"))

    def _stacked(self, name: str) -> Tensor:
        """A parameter of every head, [K, ...]."""
        return torch.stack([self.heads[index].get_parameter(name) for index in self._chosen])


_ACTION_CLASSIFIERS = ("verb_classifier", "noun_classifier", "action_classifier")


def _apply(x: Tensor, linear: _Map) -> Tensor:
    """x [K, ..., in] -> [K, ..., out], each head by its own map."""
    flat = x.flatten(1, -2)
    return torch.baddbmm(linear.bias.unsqueeze(1), flat, linear.weight.transpose(1, 2)).reshape(*x.shape[:-1], -1)
