"""One imagined rollout as a film strip: for each imagined moment the recorded frame whose latent lies nearest."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.errors import InputError
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.imagination import FrameFinder, nearest_steps
from vjepa2cli.planning.validation.held_out import Numbers
from vjepa2cli.settings import ValidateConfig


@torch.inference_mode()
def film(
    world: WorldModel, store: LatentStore, known: LatentStore, videos: Path, far: Numbers, *, config: ValidateConfig
) -> dict[str, Any]:
    """The stretch of the held-out recordings in which most moves, imagined from its first frame under its own actions.

    Of every moment there are three frames: what was `recorded` (None where `videos` does not hold the episode), the training
    frame nearest to its latent, `known`, and the one nearest to the imagined latent, `imagined`, each with its distance. Raises
    InputError where there are no training latents, ArtifactError where `videos` does not hold what they were made of.
    """
    episodes = known.of_split("train")
    if not episodes:
        raise InputError(f"{known.path}: has no training episodes to look for frames in")
    index, start, length = _liveliest(store, far, config)
    latents = torch.from_numpy(store.tokens(index, start, start + length + 1)).to(world.device)
    states = torch.from_numpy(store.states(index)[start : start + 1]).to(world.device)
    actions = torch.from_numpy(store.actions(index)[start : start + length]).to(world.device)
    imagined = world.rollout(latents[None, :1], states[None], actions[None])[0]
    opened = VideoStore.open(videos)
    recorded, training = FrameFinder(store, opened), FrameFinder(known, opened)
    holds = store.episodes[index] in {entry.source for entry in opened.entries}
    steps = {episode: range(known.lengths[episode]) for episode in episodes}
    nearest = nearest_steps(torch.cat((latents, imagined)), known, steps)
    found = [training.place(place, step) | {"distance": distance} for place, step, distance in nearest]
    return {
        "episode": store.episodes[index],
        "first_step": start,
        "videos": opened.digest,
        "recorded": [recorded.place(index, start + step) for step in range(length + 1)] if holds else None,
        "known": found[: length + 1],
        "imagined": found[length + 1 :],
        "error": (imagined - latents[1:]).abs().mean((1, 2)).tolist(),
        "copy_error": (latents[:1] - latents[1:]).abs().mean((1, 2)).tolist(),
    }


def _liveliest(store: LatentStore, far: Numbers, config: ValidateConfig) -> tuple[int, int, int]:
    """Episode, first step and length of the stretch in which the numbers go farthest, as shares of how far they ever go."""
    scale = np.where(far > 0, far, np.inf)
    best, most = (0, 0, 1), -1.0
    for index in store.of_split(config.split):
        going = (np.abs(store.actions(index)) / scale).sum(1)
        length = min(config.film_steps, len(going))
        if length:
            sums = np.convolve(going, np.ones(length), mode="valid")
            if sums.max() > most:
                best, most = (index, int(sums.argmax()), length), float(sums.max())
    return best
