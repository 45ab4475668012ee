"""Softmax attention, by the fastest exact way that the machine has for it."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = 1 << 22
"""Scores held at once on a CPU, 8 MiB of bfloat16: they stay in its cache from the first product through the second."""
_BY_HEAD = 128
"""Tokens below which a loop over heads costs more than it saves."""
_IN_ONE = 512
"""Tokens above which keeping all scores for the backward pass costs more than the fused kernel's computing them again."""


def cpu_multiplies_bfloat16(*, in_tiles: bool = False) -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware, or even in tiles (AMX); older versions of torch do not say."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(("amx_bf16" if in_tiles else "bf16") in name and held is True for name, held in capabilities.items())


_fused_is_fast = cache(lambda: cpu_multiplies_bfloat16(in_tiles=True))
"""Whether torch's fused kernel on this CPU works at the speed of bfloat16: it does only where that is multiplied in tiles."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v: [B, heads, N, head_dim] -> the same; `mask` [N, N_keys] is True where one may look.

    The fused kernel of torch, except on a CPU in bfloat16. Without AMX that kernel works at the speed of float32 there, and plain
    matrix products take less than half its time; in training of short sequences they take less than its time everywhere.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        trained = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        if trained and max(q.shape[2], k.shape[2]) <= _IN_ONE:
            return attend_in_one(q, k, v, mask)
        if not trained and mask is None and min(q.shape[2], k.shape[2]) >= _BY_HEAD and not _fused_is_fast():
            return attend_by_head(q, k, v)
        if not trained:
            v = v.contiguous()  # it is read once for every few queries
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_in_one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attend` by plain matrix products with all scores at once; see `attend_by_head` on how they are rounded."""
    scores = q @ _centred(k).transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    out: Tensor = scores.softmax(-1) @ v
    return out


def attend_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` without a mask by plain matrix products, of as many heads and queries at a time as the cache holds.

    Scores are rounded to the dtype of q before the softmax. What all keys share adds the same to every score of a query and
    falls out of its softmax, so it is taken off the keys first: the scores become small, and so does their rounding.
    """
    batch, heads, num_queries, head_dim = q.shape
    num_keys = k.shape[2]
    keys = _centred(k).transpose(-1, -2)  # [B, heads, head_dim, N_keys]
    out = q.new_empty(batch, num_queries, heads, head_dim).transpose(1, 2)  # so that the heads of a token lie side by side
    together = max(1, min(heads, _SCORES // (num_queries * num_keys)))
    rows = max(1, min(num_queries, _SCORES // num_keys))
    unused = q.new_empty(())
    for item in range(batch):
        for head in range(0, heads, together):
            some = slice(head, head + together)
            for row in range(0, num_queries, rows):
                part = slice(row, row + rows)
                scores = torch.baddbmm(unused, q[item, some, part], keys[item, some], beta=0, alpha=head_dim**-0.5)
                out[item, some, part] = torch.bmm(scores.softmax(-1), v[item, some])
    return out


def _centred(k: Tensor) -> Tensor:
    """Keys [B, heads, N, head_dim] without their mean."""
    return (k - k.mean(2, keepdim=True, dtype=torch.float32)).to(k.dtype)
