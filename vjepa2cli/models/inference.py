"""A network made ready to be run and not trained: on its device, in the precision that the device is fast in."""

from typing import Literal, TypeVar

import torch
from torch import nn

from vjepa2cli.models.attention import cpu_multiplies_bfloat16
from vjepa2cli.models.layers import Linear

Precision = Literal["fp32", "bf16"]

_Network = TypeVar("_Network", bound=nn.Module)


def native_precision(device: torch.device | str) -> Precision:
    """bf16 where the device multiplies bfloat16 matrices in hardware, else fp32: elsewhere bfloat16 is emulated, and slow."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_multiplies_bfloat16() else "fp32"


def prepare_for_inference(network: _Network, *, device: torch.device | str, precision: Precision) -> _Network:
    """Move a network to `device`, freeze it, and for "bf16" round the weights of its linear maps; it is changed in place.

    The residual stream, the norms, the patch embedding and the rotary angles stay float32: they cost little, and rounding them
    at every block is where most of the error of a network wholly in bfloat16 comes from.
    """
    network.requires_grad_(False).eval()
    if precision == "bf16":
        for part in network.modules():
            if isinstance(part, Linear):
                part.to(torch.bfloat16)
    return network.to(device)
