"""What a plan is imagined to look like: for each imagined latent, the recorded frame whose latent lies nearest."""

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
    store, frames = LatentStore.open(latents), VideoStore.open(videos)
    if store.encoder_digest != card.encoder_digest:
        raise ArtifactError(
            f"{latents}: holds latents of the encoder {store.encoder_source} ({store.encoder_digest[:12]}), but {card.source} "
            f"reads those of {card.encoder_source} ({card.encoder_digest[:12]}); run 'vjepa2 precompute' with that encoder"
        )
    indices = store.of_split("train")
    if not indices:
        raise InputError(f"{latents}: has no training episodes to look for frames in")
    best = torch.full((len(imagined),), torch.inf)
    place = torch.zeros(len(imagined), 2, dtype=torch.int64)
    wanted = imagined.float().cpu()
    together = max(1, _LARGEST // wanted.numel())
    for index in indices:
        for start in range(0, store.lengths[index], together):
            seen = torch.from_numpy(store.tokens(index, start, min(start + together, store.lengths[index])))
            distances = torch.cdist(wanted.flatten(1), seen.flatten(1), p=1.0) / wanted[0].numel()
            nearest = distances.min(dim=1)
            closer = nearest.values < best
            best = torch.where(closer, nearest.values, best)
            found = torch.stack((torch.full_like(nearest.indices, index), nearest.indices + start), dim=1)
            place = torch.where(closer.unsqueeze(1), found, place)
    entries = {entry.source: entry for entry in frames.entries}
    rows = []
    for (index, step), distance in zip(place.tolist(), best.tolist(), strict=True):
        episode = store.episodes[index]
        entry = entries.get(episode)
        if entry is None:
            raise ArtifactError(
                f"{videos}: has no {episode!r}, of which {latents} holds latents; name the store they were made of"
            )
        frame = step * stride_of(entry.fps, store.rate)
        rows.append({"episode": episode, "key": entry.key, "frame": frame, "distance": distance})
    store.close()
    return rows
