"""Frame-causal latents of robot recordings: each frame is encoded alone, so no latent has seen its future."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vjepa2cli.artifacts import latent_store
from vjepa2cli.artifacts.latent_store import LatentHeader
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.batches import stride_of
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.models.world_model import FrameEncoder, encode_frames
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import PrecomputeConfig
from vjepa2cli.tokens import TokenGrid

_MIN_STEPS = 2


def precompute(
    store: Path,
    out: Path,
    *,
    model: str,
    config: PrecomputeConfig,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Encode every trajectory of a robot store into a latent store at `out`, which appears only when it is whole.

    Raises InputError where the store holds no trajectories, ConfigError where their rates differ and none is set.
    """
    videos = VideoStore.open(store)
    entries = [entry for entry in videos.entries if entry.has_states]
    if not entries:
        raise InputError(
            f"{store}: holds no robot states; ingest recordings that have them, 'precompute' makes latents of trajectories"
        )
    encoder = load_encoder(model, device=device)
    rate = _common_rate(entries, config)
    steps = {entry.key: range(0, entry.num_frames, stride_of(entry.fps, rate)) for entry in entries}
    entries = [entry for entry in entries if len(steps[entry.key]) >= _MIN_STEPS]
    if not entries:
        raise InputError(f"{store}: no recording lasts {_MIN_STEPS} steps at {rate:g} Hz; set a higher rate")
    space, states, actions = _trajectories(videos, entries, steps)
    header = _header(encoder, videos, model=model, config=config, rate=rate, entries=entries, space=space)
    prepare_for_inference(encoder, device=device, precision=config.precision)  # after the header, which has its digest
    progress.start("precompute", total=sum(len(steps[entry.key]) for entry in entries))
    lengths = [len(steps[entry.key]) for entry in entries]
    with latent_store.create(out, header, lengths=lengths, dtype=config.dtype, dims=(space.width, space.width)) as writer:
        for index, entry in enumerate(entries):
            rows = steps[entry.key]
            frames = videos.frames(entry.key, 0, entry.num_frames, rows.step)
            tokens = _encode(encoder, frames, config=config, device=device, progress=progress)
            writer.write(index, tokens, states=states[index], actions=actions[index])
        writer.name_episodes([entry.source for entry in entries], [entry.split for entry in entries])
    progress.finish()
    return out


def _trajectories(
    videos: VideoStore, entries: Sequence[VideoEntry], steps: Mapping[str, range]
) -> tuple[StateSpace, list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """States [T, S] and the actions [T-1, S] between them, of each entry; the space tells how far those for training go."""
    space = StateSpace.parse(videos.state_space)
    states, actions = [], []
    for entry in entries:
        recorded = videos.states(entry.key)
        assert recorded is not None
        states.append(recorded[:: steps[entry.key].step])
        actions.append(space.delta(torch.from_numpy(states[-1].astype(np.float64))).float().numpy())
    training = [found for entry, found in zip(entries, actions, strict=True) if entry.split == "train"]
    return space.with_usual_change(torch.from_numpy(np.concatenate(training or actions))), states, actions


def _common_rate(entries: Sequence[VideoEntry], config: PrecomputeConfig) -> float:
    """Steps a second of every trajectory."""
    if config.rate is not None:
        return config.rate
    rates = sorted({round(entry.fps, 3) for entry in entries})
    if len(rates) > 1:
        raise ConfigError(
            f"rate: the recordings run at {rates} frames a second; set rate to the one that they should be sampled at"
        )
    return rates[0]


def _header(
    encoder: FrameEncoder,
    videos: VideoStore,
    *,
    model: str,
    config: PrecomputeConfig,
    rate: float,
    entries: Sequence[VideoEntry],
    space: StateSpace,
) -> LatentHeader:
    spec = encoder.spec
    grid = TokenGrid.from_pixels(
        spec.tubelet_size, config.crop, config.crop, patch_size=spec.patch_size, tubelet_size=spec.tubelet_size
    )
    digest = encoder_digest(encoder)
    robots = sorted({entry.robot or "unknown" for entry in entries})
    if len(robots) > 1:
        raise InputError(f"the store mixes robots ({', '.join(robots)}); ingest each into a store of its own")
    return LatentHeader(
        encoder_source=model,
        encoder_digest=digest,
        layer_norm=not isinstance(encoder, PixelEncoder),
        grid=(1, grid.h, grid.w),
        embed_dim=spec.embed_dim,
        rate=rate,
        robot=robots[0],
        preprocessing={"crop": config.crop, "geometry": config.geometry},
        provenance=provenance("precompute", config, inputs={"videos": videos.digest, "encoder": digest}),
        state_space=space.to_tree(),
    )


@torch.inference_mode()
def _encode(
    encoder: FrameEncoder,
    frames: npt.NDArray[np.uint8],
    *,
    config: PrecomputeConfig,
    device: torch.device | str,
    progress: Progress,
) -> npt.NDArray[np.float32]:
    """Latents of frames [T, Y, X, 3]: [T, H*W, D]."""
    parts = []
    for start in range(0, len(frames), config.batch_frames):
        batch = frames[start : start + config.batch_frames]
        pixels = torch.as_tensor(frame_transform(batch, crop=config.crop, geometry=config.geometry)).to(device)
        latents = encode_frames(encoder, pixels, layer_norm=not isinstance(encoder, PixelEncoder))
        parts.append(latents.float().cpu().numpy())
        progress.advance(len(batch))
    return np.concatenate(parts)
