"""Recordings whose latents are a linear look at the hand, and worlds that know more or less of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa2cli.artifacts import latent_store
from vjepa2cli.artifacts.latent_store import LatentHeader
from vjepa2cli.models.ac_predictor import AcPredictorSpec

LOOK = np.random.default_rng(0).normal(size=(4, 4 * 24))
SEEN = (0, 1, 2, 6)
"""The numbers that the latents show: x, y, z and, a tenth as much, the gripper."""
SHADE = np.array([1.0, 1.0, 1.0, 0.1])

WriteStore = Callable[..., Path]


@pytest.fixture
def write_latents(tmp_path: Path) -> WriteStore:
    """`write(name="latents.h5", digest="d", splits=..., steps=10, seed=0)`: latents [4 tokens, 24] of a hand that moves."""

    def write(
        name: str = "latents.h5",
        digest: str = "d",
        splits: Sequence[str] = ("train", "train", "val", "val", "val"),
        steps: int = 10,
        seed: int = 0,
        rate: float = 4.0,
        offset: float = 0.0,
        layer_norm: bool = True,
        tremble: float | None = None,
        state_space: dict[str, object] | None = None,
    ) -> Path:
        header = LatentHeader(
            encoder_source="encoder",
            encoder_digest=digest,
            layer_norm=layer_norm,
            grid=(1, 2, 2),
            embed_dim=24,
            rate=rate,
            robot="tabletop",
            preprocessing={"crop": 32, "geometry": "centre"},
            provenance={},
            state_space=state_space,
        )
        width = 7 if state_space is None else len(state_space["names"])  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        path, count = tmp_path / name, len(splits)
        with latent_store.create(path, header, lengths=[steps] * count, dtype="float32", dims=(width, width)) as writer:
            for index in range(count):
                actions = np.zeros((steps - 1, width), np.float32)
                actions[:, :3] = rng.uniform(-0.05, 0.05, (steps - 1, 3))
                if tremble is not None:
                    actions[:, 2] *= tremble / 0.05
                if width == 7:
                    actions[:, 6] = rng.uniform(0.2, 0.5, steps - 1) * np.resize([1, -1], steps - 1)
                states = np.concatenate([np.zeros((1, width), np.float32), actions.cumsum(0)]) + np.float32(0.3)
                seen = states[:, SEEN] * SHADE if width == 7 else states[:, :3] @ np.eye(3, 4)
                writer.write(index, (seen @ LOOK).reshape(steps, 4, 24) + offset, states=states, actions=actions)
            writer.name_episodes([f"{name}-{index}" for index in range(count)], list(splits))
        return path

    return write


class LinearWorld:
    """Knows how the hand is looked at; `use` is how much it believes in each number of an action that shows."""

    device = torch.device("cpu")
    ac = type("Predictor", (), {"spec": AcPredictorSpec(24, 16, 1, 2, grid_h=2, grid_w=2)})

    def __init__(self, *use: float) -> None:
        self._look = torch.from_numpy((np.array(use) * SHADE)[:, None] * LOOK).float()

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: None = None) -> Tensor:
        change = actions[..., SEEN].cumsum(1) @ self._look
        return latents + change.unflatten(-1, (4, 24))
