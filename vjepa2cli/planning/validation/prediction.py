"""How well the model predicts held-out windows, 1 to H steps ahead, beside guesses that know less."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.statistics import clustered_interval, share, standard_error
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.validation.held_out import HeldOut, Numbers
from vjepa2cli.progress import SILENT, Progress

_BATCH = 16
_BOOTSTRAP_STREAM = 2
RIVALS = ("copy", "no_action", "shuffled")
"""Guesses that know less: nothing moves; the model with actions of 0; the model with the actions of another window."""


@torch.inference_mode()
def prediction_errors(world: WorldModel, windows: HeldOut, *, progress: Progress = SILENT) -> dict[str, Numbers]:
    """Mean |predicted - true| of each window after 1..H steps, [W, H], in latent space.

    `model` rolls out the true actions from the first frame and state, `no_action` actions of 0, `shuffled` those of a window half
    the set away; `copy` stays where it is; `one_step` begins every step at the true frame before it.
    """
    count, device = len(windows.episodes), world.device
    other = (torch.arange(count) + count // 2) % count
    parts: dict[str, list[Tensor]] = {}
    progress.start("predict", total=count)
    for rows in torch.split(torch.arange(count), _BATCH):
        latents, states = windows.latents[rows].to(device), windows.states[rows].to(device)
        actions = windows.actions[rows].to(device)
        first = latents[:, :1], states[:, :1]
        guesses = {
            "model": world.rollout(*first, actions),
            "copy": latents[:, :1],
            "no_action": world.rollout(*first, torch.zeros_like(actions)),
            "shuffled": world.rollout(*first, windows.actions[other[rows]].to(device)),
            "one_step": _one_step(world, latents[:, :-1], states, actions),
        }
        for name, guess in guesses.items():
            parts.setdefault(name, []).append((guess - latents[:, 1:]).abs().mean((2, 3)).double().cpu())
        progress.advance(len(rows))
    progress.finish()
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def _one_step(world: WorldModel, latents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Predictions [B, H, H*W, D] of every step from the true latents [B, H, H*W, D] before it."""
    rows, horizon = latents.shape[:2]
    apart = (part.flatten(0, 1).unsqueeze(1) for part in (latents, states, actions))
    return world.rollout(*apart).reshape(rows, horizon, *latents.shape[2:])


def describe_step(errors: dict[str, Numbers], step: int, *, episodes: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """What is said of predictions `step + 1` steps ahead: means, and differences with an interval over episodes.

    `drift` is how many times as large the error is as where every step begins at the truth.
    """
    here = {name: values[:, step] for name, values in errors.items()}
    own, key = here["model"], [seed, _BOOTSTRAP_STREAM, step]
    below = {
        f"below_{name}": {
            "mean": float((here[name] - own).mean()),
            "interval": clustered_interval(here[name] - own, episodes, key=key),
        }
        for name in RIVALS
    }
    fresh = float(here["one_step"].mean())
    return {
        "steps": step + 1,
        "error": {name: float(values.mean()) for name, values in here.items()},
        "standard_error": {name: standard_error(values.tolist()) for name, values in here.items()},
        **below,
        "true_beats_shuffled": share(int((own < here["shuffled"]).sum()), len(own)),
        "drift": float(own.mean()) / fresh if fresh else None,
    }
