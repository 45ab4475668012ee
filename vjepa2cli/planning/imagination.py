"""What a plan is imagined to look like: for each imagined latent, the recorded frame whose latent lies nearest."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.batches import stride_of
from vjepa2cli.errors import ArtifactError, InputError
from vjepa2cli.planning.model_card import ModelCard

_LARGEST = 1 << 26
"""Numbers compared at once, 256 MiB."""


def nearest_frames(imagined: Tensor, latents: Path, videos: Path, *, card: ModelCard) -> list[dict[str, Any]]:
    """For each of the latents [n, H*W, D], the nearest training frame by mean |difference|: its place in both stores.

    A picture of the nearest frame is not what the model imagines: the model has no pixels, and `distance` says how far off the
    frame is. Raises ArtifactError for latents of another encoder and for videos that are not those of the latents.
    """
    store = LatentStore.open(latents)
    check_encoder(store, card)
    indices = store.of_split("train")
    if not indices:
        raise InputError(f"{latents}: has no training episodes to look for frames in")
    nearest = nearest_steps(imagined, store, {index: range(store.lengths[index]) for index in indices})
    frames = FrameFinder(store, VideoStore.open(videos))
    rows = [frames.place(index, step) | {"distance": distance} for index, step, distance in nearest]
    store.close()
    return rows


def check_encoder(store: LatentStore, card: ModelCard) -> None:
    """Raise ArtifactError where the latents are of another encoder than the one whose latents the model reads."""
    if store.encoder_digest != card.encoder_digest:
        raise ArtifactError(
            f"{store.path}: holds latents of the encoder {store.encoder_source} ({store.encoder_digest[:12]}), but {card.source} "
            f"reads those of {card.encoder_source} ({card.encoder_digest[:12]}); run 'vjepa2 precompute' with that encoder"
        )


class FrameFinder:
    """Finds the recorded frame of a step of a latent store in the video store that its latents were made of."""

    def __init__(self, latents: LatentStore, videos: VideoStore) -> None:
        self._latents, self._videos = latents, videos
        self._entries = {entry.source: entry for entry in videos.entries}

    def place(self, index: int, step: int) -> dict[str, Any]:
        """Episode, key and number of the frame; raises ArtifactError where the video store has no such episode."""
        episode = self._latents.episodes[index]
        entry = self._entries.get(episode)
        if entry is None:
            raise ArtifactError(
                f"{self._videos.path}: has no {episode!r}, of which {self._latents.path} holds latents; "
                "name the store they were made of"
            )
        return {"episode": episode, "key": entry.key, "frame": step * stride_of(entry.fps, self._latents.rate)}


def nearest_steps(wanted: Tensor, store: LatentStore, steps: Mapping[int, Sequence[int]]) -> list[tuple[int, int, float]]:
    """For each latent [n, H*W, D], the nearest of the given `steps` of episodes by mean |difference|: episode, step, distance."""
    best = torch.full((len(wanted),), torch.inf, device=wanted.device)
    place = torch.zeros(len(wanted), 2, dtype=torch.int64, device=wanted.device)
    for index, chosen in steps.items():
        numbers = torch.as_tensor(list(chosen))
        for part, distances in distances_to(wanted, store, index, numbers):
            nearest = distances.min(dim=1)
            closer = nearest.values < best
            best = torch.where(closer, nearest.values, best)
            found = torch.stack((torch.full_like(nearest.indices, index), part.to(place)[nearest.indices]), dim=1)
            place = torch.where(closer.unsqueeze(1), found, place)
    return [(index, step, distance) for (index, step), distance in zip(place.tolist(), best.tolist(), strict=True)]


def distances_to(wanted: Tensor, store: LatentStore, index: int, steps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean |difference| [n, m] of latents [n, H*W, D] to steps of an episode, m of them [m] at a time as memory allows."""
    flat = wanted.float().flatten(1)
    together = max(1, _LARGEST // flat.numel())
    for part in torch.split(steps, together):
        first, last = int(part.min()), int(part.max())
        seen = torch.from_numpy(store.tokens(index, first, last + 1))[part - first]
        yield part, torch.cdist(flat, seen.flatten(1).to(flat.device), p=1.0) / flat.shape[1]
