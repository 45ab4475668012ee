"""Windows through the encoder: the features of a whole input on its time grid, and the files that hold them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.artifacts.model_dir import save_tensors
from vjepa2cli.data.transforms import preprocess
from vjepa2cli.data.video import Clip
from vjepa2cli.encoding.sources import Source
from vjepa2cli.encoding.windows import sampled, windows
from vjepa2cli.files import digest_bytes, replaced_atomically
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.progress import Progress
from vjepa2cli.settings import EncodeConfig
from vjepa2cli.tokens import TokenGrid


@dataclass(frozen=True)
class Features:
    """Tokens float32 [T, H, W, D] of a whole input, and for each time step the mean timestamp [T] of its frames, in seconds.

    `num_frames` were read; `padded_frames` copies of the last one filled the last tubelet.
    """

    tokens: NDArray[np.float32]
    timestamps: NDArray[np.float64]
    num_frames: int
    padded_frames: int


@torch.inference_mode()
def compute_features(source: Source, encoder: FrameEncoder, *, config: EncodeConfig, crop: int, progress: Progress) -> Features:
    """Encode all windows of an input, one after the other."""
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    # V-JEPA 2.1 has a tokenizer for images; any other encoder sees a tubelet of copies.
    tubelet = 1 if source.still and isinstance(encoder, EncoderV21) else encoder.spec.tubelet_size
    tokens: list[NDArray[np.float32]] = []
    timestamps: list[NDArray[np.float64]] = []
    num_frames = padded = 0
    for window in windows(sampled(source, config), num_frames=config.num_frames, tubelet_size=tubelet):
        times = np.array([time for time, _ in window.frames])
        clip = preprocess(Clip(np.stack([pixels for _, pixels in window.frames]), 1.0, times, source.name), crop=crop)[None]
        grid = encoder.grid(clip)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            encoded = encoder(clip.to(device))[0].float().cpu().numpy()
        tokens.append(encoded.reshape(grid.t, grid.h, grid.w, -1)[window.skip :])
        timestamps.append(times.reshape(grid.t, tubelet).mean(1)[window.skip :])
        num_frames += len(window.frames) - window.skip * tubelet - window.padding
        padded += window.padding
        progress.advance(0, fields={"frames": num_frames})
    return Features(np.concatenate(tokens), np.concatenate(timestamps), num_frames, padded)


def describe(source: Source, features: Features) -> dict[str, Any]:
    """What the report says of one encoded input; the digest is that of tokens and timestamps."""
    return {
        "source": source.name,
        "shape": list(features.tokens.shape),
        "num_frames": features.num_frames,
        "padded_frames": features.padded_frames,
        "notes": list(source.notes),
        "last_timestamp": float(features.timestamps[-1]),
        "digest": digest_bytes(features.tokens.tobytes(), features.timestamps.tobytes()),
    }


def save_features(path: Path, features: Features, origin: dict[str, Any]) -> None:
    """Write features as `.npz` or `.safetensors`, by the suffix of `path`, whole or not at all."""
    grid = TokenGrid(*features.tokens.shape[:3])
    arrays: dict[str, Any] = {
        "tokens": features.tokens,
        "timestamps": features.timestamps,
        "grid": np.array([grid.t, grid.h, grid.w]),
        "num_frames": np.array(features.num_frames),
    }
    text = json.dumps(origin, sort_keys=True)
    if path.suffix == ".safetensors":
        save_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata={"provenance": text})
        return
    with replaced_atomically(path) as partial, partial.open("wb") as handle:
        np.savez(handle, provenance=np.array(text), **arrays)
