"""The digest of what a network holds, by which latents and models know the encoder they were made with."""

import torch
from torch import nn

from vjepa2cli.files import digest_bytes, digest_json
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.world_model import FrameEncoder


def state_digest(module: nn.Module) -> str:
    """SHA-256 over the names, the shapes and the float32 bytes of a network's weights, sorted by name."""
    parts: list[bytes] = []
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        parts += [f"{name} {list(values.shape)}".encode(), digest_bytes(values.numpy().tobytes()).encode()]
    return digest_bytes(*parts)


def encoder_digest(encoder: FrameEncoder) -> str:
    """What latents are marked with: the digest of an encoder's spec and weights, or of how pixels are averaged."""
    if isinstance(encoder, PixelEncoder):
        spec = encoder.spec
        return f"pixels-{digest_json([spec.patch_size, spec.tubelet_size, spec.blocks, spec.in_channels])}"
    return state_digest(encoder)
