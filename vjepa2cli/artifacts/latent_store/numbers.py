"""How latents are kept: as float16 or float32, as bfloat16 in the bits of uint16, or as int8 with a scale per token."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store.header import Array


@dataclass(frozen=True)
class NumberFormat:
    """One way to keep numbers: `stored` in the file, and what padding reads as, which no latent is."""

    name: str
    stored: np.dtype[Any]
    padding: float
    has_scales: bool = False

    def token_bytes(self, width: int) -> int:
        """Bytes of one token of this width."""
        return self.stored.itemsize * width + (4 if self.has_scales else 0)

    def pack(self, latents: Tensor) -> tuple[Array, Array | None]:
        """latents [..., D] on any device to what is stored, and scales [...] float32 where there are any."""
        latents = latents.detach()
        if self.name == "bfloat16":
            # h5py knows no bfloat16, so its bits are kept as uint16.
            return latents.to(torch.bfloat16).view(torch.int16).cpu().numpy().view(np.uint16), None
        if not self.has_scales:
            return latents.to(getattr(torch, self.name)).cpu().numpy(), None
        latents = latents.float()
        scales = latents.abs().amax(dim=-1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        return (latents / scales.unsqueeze(-1)).round().to(torch.int8).cpu().numpy(), scales.cpu().numpy()

    def unpack(self, stored: Array, scales: Array | None) -> Tensor:
        """What was packed: float16 and bfloat16 as such, and int8 as float32."""
        if self.name == "bfloat16":
            return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)
        latents = torch.from_numpy(stored)
        return latents if scales is None else latents.float().mul_(torch.from_numpy(scales).unsqueeze(-1))


_INT8_MAX = 127
_BFLOAT16_NAN = 0x7FC0
FORMATS = {
    each.name: each
    for each in (
        NumberFormat("float32", np.dtype("<f4"), np.nan),
        NumberFormat("float16", np.dtype("<f2"), np.nan),
        NumberFormat("bfloat16", np.dtype("<u2"), _BFLOAT16_NAN),
        NumberFormat("int8", np.dtype("i1"), -128, has_scales=True),
    )
}
