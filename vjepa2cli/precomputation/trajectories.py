"""What of a video store becomes latents: its recordings with states, at one rate, and the actions between their steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import Episode
from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.batches import stride_of
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.settings import PrecomputeConfig

_MIN_STEPS = 2


@dataclass(frozen=True)
class Trajectories:
    """Recordings as a world model reads them: `rows` of each entry are its steps, `rate` of them a second."""

    entries: Sequence[VideoEntry]
    rows: Sequence[range]
    episodes: Sequence[Episode]
    space: StateSpace
    rate: float
    robot: str


def read_trajectories(videos: VideoStore, *, config: PrecomputeConfig) -> Trajectories:
    """Raises InputError for a store without trajectories or of several robots, ConfigError where their rates differ."""
    found = [entry for entry in videos.entries if entry.has_states]
    if not found:
        raise InputError(
            f"{videos.path}: holds no robot states; ingest recordings that have them, 'precompute' makes latents of trajectories"
        )
    rate = _common_rate(found, config)
    entries, rows = [], []
    for entry in found:
        steps = range(0, entry.num_frames, stride_of(entry.fps, rate))
        if len(steps) >= _MIN_STEPS:
            entries.append(entry)
            rows.append(steps)
    if not entries:
        raise InputError(f"{videos.path}: no recording lasts {_MIN_STEPS} steps at {rate:g} Hz; set a higher rate")
    robots = sorted({entry.robot or "unknown" for entry in entries})
    if len(robots) > 1:
        raise InputError(f"{videos.path}: mixes robots ({', '.join(robots)}); ingest each into a store of its own")
    space = StateSpace.parse(videos.state_space)
    episodes = [_episode(videos, entry, steps, space) for entry, steps in zip(entries, rows, strict=True)]
    actions = [episode.actions for episode in episodes if episode.split == "train"] or [each.actions for each in episodes]
    space = space.with_usual_change(torch.from_numpy(np.concatenate(actions)))
    return Trajectories(entries, rows, episodes, space, rate, robots[0])


def _episode(videos: VideoStore, entry: VideoEntry, steps: range, space: StateSpace) -> Episode:
    recorded = videos.states(entry.key)
    assert recorded is not None
    states = recorded[:: steps.step]
    actions = space.delta(torch.from_numpy(states.astype(np.float64))).float().numpy()
    extrinsics = videos.extrinsics(entry.key)
    return Episode(entry.source, entry.split, states, actions, None if extrinsics is None else extrinsics[:: steps.step])


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


def where_free(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
