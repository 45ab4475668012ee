"""What every network here is made of: rotary positions, attention, blocks, and the released initialisation."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vjepa2cli.errors import InputError
from vjepa2cli.models.attention import attend
from vjepa2cli.tokens import TokenGrid

RotaryVariant = Literal["tiled", "interleaved"]

_ROTARY_BASE = 10000.0
_PRETRAINED_SIDE = 16
_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
_TURNED_TOGETHER = 1 << 18
"""Channels that are turned at a time, 1 MiB of float32."""
_UPPER_HALF = -(1 << 16)
"""The mask of the upper 16 bits of an integer of 32."""


class Rotary(NamedTuple):
    """Cosines and signed sines of every token's angles, [B or 1, 1, N, head_dim] float32."""

    cos: Tensor
    sin: Tensor


def token_positions(ids: Tensor, grid: TokenGrid) -> Tensor:
    """The (t, row, column) of flat token ids: [..., N] int64 -> [..., N, 3]."""
    return torch.stack(grid.positions(ids), dim=-1)


def interpolate_positions(positions: Tensor, grid: TokenGrid) -> Tensor:
    """Stretch the rows and columns of a grid to those of 16 x 16, time stays: [..., N, 3] -> [..., N, 3] float32.

    So a frame spans the same angles at every resolution, those of the 256 pixels that V-JEPA 2.1 was pretrained at; V-JEPA 2
    counts on instead.

    Source: app/vjepa_2_1/models/utils/modules.py of facebookresearch/vjepa2 (`interpolate_rope`).
    """
    scales = [1.0, *((_PRETRAINED_SIDE - 1) / max(size - 1, 1) for size in (grid.h, grid.w))]
    return positions.float() * torch.tensor(scales, device=positions.device)


def rotary_table(positions: Tensor, head_dim: int, *, variant: RotaryVariant = "tiled") -> Rotary:
    """Angles of 3-D rotary positions, computed once per forward in float32: positions [B, N, 3] -> Rotary.

    Along a head the channels are [time | row | column | rest]: three segments of equal even width, the rest is not turned. A
    segment of width 2m turns adjacent channels by position / 10000^(j/m), j = 0 .. m-1. V-JEPA 2 tiles the m angles over the 2m
    channels, so the two channels of a pair turn by *different* angles: no rotation in the strict sense, and not invariant to
    shifts, but what the released weights were trained with. V-JEPA 2.1 gives both channels of a pair the same angle.

    Source: src/models/utils/modules.py and app/vjepa_2_1/models/utils/modules.py of facebookresearch/vjepa2.
    """
    num_angles = head_dim // 3 // 2
    exponents = torch.arange(num_angles, dtype=torch.float32, device=positions.device) / max(num_angles, 1)
    angles = positions.float().unsqueeze(-1) * _ROTARY_BASE**-exponents  # [B, N, 3, m]
    angles = angles.repeat(1, 1, 1, 2) if variant == "tiled" else angles.repeat_interleave(2, dim=-1)  # [B, N, 3, 2m]
    angles = F.pad(angles.flatten(2), (0, head_dim - 6 * num_angles)).unsqueeze(1)  # [B, 1, N, head_dim]
    signs = torch.tensor([-1.0, 1.0], device=positions.device).repeat(head_dim // 2)
    return Rotary(angles.cos(), angles.sin() * signs)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn adjacent channels of `x` [..., B, heads, N, head_dim] by the angles of its tokens, always in float32."""
    swapped = x.reshape(*x.shape[:-1], -1, 2).flip(-1).reshape(x.shape)
    turned: Tensor = (x * rotary.cos).addcmul_(swapped, rotary.sin)
    return turned.to(x.dtype)


def turn(x: Tensor, rotary: Rotary) -> Tensor:
    """`rotate` for queries and keys that meet each other alone: the channels of a head may come in another order, alike for all.

    On a CPU in bfloat16 without gradients they are the even ones, then the odd ones, and it takes less than half the time.
    """
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and not (torch.is_grad_enabled() and x.requires_grad):
        return _rotate_apart(x, rotary)
    return rotate(x, rotary)


def _rotate_apart(x: Tensor, rotary: Rotary) -> Tensor:
    """`rotate` of bfloat16 with the even channels of each head before the odd ones; as many tokens at a time as a cache holds.

    A bfloat16 is the upper half of a float32, so a pair of channels, read as one integer, holds both as float32 but for a shift.
    """
    pairs = x.view(torch.int32)  # the odd channel above the even one
    half = x.shape[-1] // 2
    cos, sin = ((table[..., 0::2].contiguous(), table[..., 1::2].contiguous()) for table in rotary)
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    num_tokens = x.shape[-2]
    together = max(1, _TURNED_TOGETHER * num_tokens // max(x.numel(), 1))
    for start in range(0, num_tokens, together):
        some = slice(start, start + together)
        even = (pairs[..., some, :] << 16).view(torch.float32)
        odd = (pairs[..., some, :] & _UPPER_HALF).view(torch.float32)
        turned[..., some, :half] = (even * cos[0][..., some, :]).addcmul_(odd, sin[0][..., some, :])
        turned[..., some, half:] = (odd * cos[1][..., some, :]).addcmul_(even, sin[1][..., some, :])
    return turned


class KeyValues:
    """The keys and values that one block has computed for earlier tokens, [B, heads, N, head_dim] each.

    `grows` until it is told that no tokens will follow the next ones, whose keys and values need not be kept then.
    """

    def __init__(self) -> None:
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self.grows = True

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append those of new tokens and return all of them, oldest first; a single row so far is that of every new row."""
        first = self._keys is None
        if self._keys is not None and self._values is not None:
            keys, values = (
                torch.cat((old.expand(len(new), -1, -1, -1), new), dim=2)
                for old, new in ((self._keys, keys), (self._values, values))
            )
        if self.grows:
            # What comes out of a block are views of its whole qkv map, which they would keep from being freed.
            own = first and not torch.is_grad_enabled()
            self._keys, self._values = (keys.clone(), values.clone()) if own else (keys, values)
        return keys, values


class Linear(nn.Linear):
    """A linear map that works in the dtype of its weights, so that they can be bfloat16 where the residual stream is float32."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D_in] -> [..., D_out], in the dtype of the weights, or under autocast in that of autocast."""
        x = self._cast(x)
        return self._fused(x, "none") if self._can_fuse(x) else F.linear(x, self.weight, self.bias)

    def then_gelu(self, x: Tensor) -> Tensor:
        """The same, through an exact GELU."""
        x = self._cast(x)
        return self._fused(x, "gelu") if self._can_fuse(x) else F.gelu(F.linear(x, self.weight, self.bias))

    def _cast(self, x: Tensor) -> Tensor:
        # Autocast casts by itself; a bfloat16 input would go to float32 and back.
        return x if torch.is_autocast_enabled(x.device.type) else x.to(self.weight.dtype)

    def _can_fuse(self, x: Tensor) -> bool:
        in_bfloat16 = x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.bfloat16 and x.numel() > 0
        return in_bfloat16 and _HAS_ONEDNN and not torch.is_grad_enabled()

    def _fused(self, x: Tensor, activation: str) -> Tensor:
        """By oneDNN, which adds the bias and applies the activation within the product, where torch's call passes over it again.

        It is what torch's own compiler calls; it has no gradient.
        """
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], "none")
        return out


class Attention(nn.Module):
    """Multi-head self-attention whose positions, if it has any, come as data."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tensor, rotary: Rotary | None = None, mask: Tensor | None = None, past: KeyValues | None = None
    ) -> Tensor:
        """[B, N, D] -> [B, N, D]; `mask` [N, N_keys] is True where a token may look, `past` holds keys of tokens before these."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, N, head_dim]
        q, k = qkv[:2] if rotary is None else turn(qkv[:2], rotary)
        v = qkv[2]
        if past is not None:
            k, v = past.extend(k, v)
        out: Tensor = self.proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        out: Tensor = self.fc2(self.fc1.then_gelu(x))
        return out


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, x: Tensor, rotary: Rotary | None = None, mask: Tensor | None = None, past: KeyValues | None = None
    ) -> Tensor:
        """[B, N, D] -> [B, N, D]; see `Attention`."""
        x = x + self.attn(self.norm1(x), rotary, mask, past)
        added = self.mlp(self.norm2(x))
        # Nobody else holds this x; with gradients the norm does.
        out: Tensor = x + added if torch.is_grad_enabled() else x.add_(added)
        return out


def modality_embed(dim: int) -> nn.Parameter:
    """What V-JEPA 2.1 adds to every token of an image, or of a video: [1, 1, dim]; `initialise` draws it."""
    return nn.Parameter(torch.zeros(1, 1, dim))


def run_block(
    block: nn.Module, x: Tensor, rotary: Rotary | None = None, mask: Tensor | None = None, *, checkpointing: bool
) -> Tensor:
    """`block(x, rotary, mask)`; with `checkpointing` its activations are computed again in the backward pass, not kept."""
    recompute = checkpointing and torch.is_grad_enabled()
    out: Tensor = checkpoint(block, x, rotary, mask, use_reentrant=False) if recompute else block(x, rotary, mask)
    return out


def check_heads(owner: str, embed_dim: int, num_heads: int) -> None:
    """Raise InputError unless `embed_dim` splits into `num_heads` heads of even width."""
    if num_heads < 1 or embed_dim % num_heads or (embed_dim // num_heads) % 2:
        raise InputError(f"{owner}: num_heads: {embed_dim} channels do not split into {num_heads} heads of an even width")


def initialise(module: nn.Module, blocks: Iterable[nn.Module], generator: torch.Generator | None) -> None:
    """Draw the weights of `module` as the released code does; None stands for a generator seeded with 0.

    Linear maps and convolutions: normal with standard deviation 0.02 cut at an absolute 2, biases zero. Then what block i = 1 ..
    adds to the residual stream (attn.proj and mlp.fc2) is divided by sqrt(2 i). The modality embeddings of V-JEPA 2.1 begin with
    a standard deviation of 1e-6. On the meta device there is nothing to draw.

    Source: src/models/vision_transformer.py and app/vjepa_2_1/models/vision_transformer.py of facebookresearch/vjepa2.
    """
    generator = generator or torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv3d)) and not part.weight.is_meta:
            nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters(recurse=False):
        if name.endswith("_mod_embed") and not parameter.is_meta:
            nn.init.normal_(parameter, std=1e-6, generator=generator)
    for index, block in enumerate(blocks, start=1):
        if isinstance(block, Block):
            rescale(block.attn.proj.weight, index)
            rescale(block.mlp.fc2.weight, index)


def rescale(weight: Tensor, index: int) -> None:
    """Divide a weight in place by sqrt(2 index), so that the residual stream keeps its scale with depth."""
    with torch.no_grad():
        weight.div_((2.0 * index) ** 0.5)
