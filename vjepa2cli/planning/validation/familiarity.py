"""How far the inputs lie from what the model was trained on, and how far its imagination drifts from there."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.imagination import distances_to, nearest_steps
from vjepa2cli.planning.validation.held_out import HeldOut, Numbers, spread
from vjepa2cli.settings import ValidateConfig

_FAR_OFF = 95
_IMAGINED = 32
Steps = Mapping[int, list[int]]


def familiarity(world: WorldModel, windows: HeldOut, known: LatentStore, *, config: ValidateConfig) -> dict[str, Any]:
    """Distances, mean |difference|, from held-out latents to the nearest of the training latents in the store `known`.

    The measure is what training latents have to the nearest one of another training episode: `within` is the share of held-out
    latents no farther off than 95 % of those are, 0.95 for recordings of the same kind. `rollout` compares what the model
    imagines 1..H steps ahead with what was recorded there. `actions_within` is the share of held-out actions whose every number
    lies in the range of the training actions. Two training episodes are needed, so that there is a distance between them.
    """
    episodes = known.of_split("train")
    assert len(episodes) > 1
    steps = _drawn(known, episodes, count=config.num_known, seed=config.seed)
    usual = _among_training(known, steps, count=config.num_compared, device=world.device)
    ends = windows.latents.flatten(0, 1)
    chosen = torch.as_tensor(spread(np.arange(len(ends)), config.num_compared))
    held_out = _nearest(ends[chosen].to(world.device), known, steps)
    limit = float(np.percentile(usual, _FAR_OFF))
    low, high = _range(known, episodes)
    actions = windows.actions.flatten(0, 1).double().numpy()
    return {
        "training_episodes": len(episodes),
        "training_steps": sum(map(len, steps.values())),
        "training": _summary(usual),
        "held_out": _summary(held_out),
        "limit": limit,
        "within": float((held_out <= limit).mean()),
        "actions_within": float(((actions >= low) & (actions <= high)).all(1).mean()),
        "rollout": _rollout(world, windows, known, steps),
    }


def _drawn(known: LatentStore, episodes: list[int], *, count: int, seed: int) -> Steps:
    """At most `count` training steps, by episode."""
    places = np.array([(index, step) for index in episodes for step in range(known.lengths[index])])
    places = places[np.sort(np.random.default_rng([seed, len(places)]).permutation(len(places))[:count])]
    return {int(index): places[places[:, 0] == index, 1].tolist() for index in np.unique(places[:, 0])}


def _among_training(known: LatentStore, steps: Steps, *, count: int, device: torch.device) -> Numbers:
    """Distances of at most `count` training latents to the nearest one of another training episode."""
    places = [(index, step) for index, chosen in steps.items() for step in chosen]
    queries = [places[number] for number in spread(np.arange(len(places)), count)]
    wanted = torch.stack([torch.from_numpy(known.tokens(index, step, step + 1)[0]) for index, step in queries]).to(device)
    own = torch.tensor([index for index, _ in queries], device=device)
    best = torch.full((len(queries),), torch.inf, device=device)
    for index, chosen in steps.items():
        for _, distances in distances_to(wanted, known, index, torch.as_tensor(chosen)):
            best = torch.where(own == index, best, torch.minimum(best, distances.min(1).values))
    return best.double().cpu().numpy()


def _nearest(wanted: Tensor, known: LatentStore, steps: Steps) -> Numbers:
    return np.array([distance for _, _, distance in nearest_steps(wanted, known, steps)])


@torch.inference_mode()
def _rollout(world: WorldModel, windows: HeldOut, known: LatentStore, steps: Steps) -> list[dict[str, Any]]:
    """For 1..H steps: median distance to the nearest training latent of what was recorded, and of what is imagined."""
    chosen = torch.as_tensor(spread(np.arange(len(windows.episodes)), _IMAGINED))
    latents, states, actions = (part[chosen].to(world.device) for part in (windows.latents, windows.states, windows.actions))
    imagined = world.rollout(latents[:, :1], states[:, :1], actions)
    return [
        {
            "steps": step + 1,
            "recorded": float(np.median(_nearest(latents[:, step + 1], known, steps))),
            "imagined": float(np.median(_nearest(imagined[:, step], known, steps))),
        }
        for step in range(imagined.shape[1])
    ]


def _summary(values: Numbers) -> dict[str, float]:
    return {"median": float(np.median(values)), "percentile_95": float(np.percentile(values, _FAR_OFF))}


def _range(known: LatentStore, episodes: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    actions = np.concatenate([known.actions(index) for index in episodes]).astype(np.float64)
    return actions.min(0), actions.max(0)
