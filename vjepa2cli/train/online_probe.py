"""How well a linear probe separates the classes of labelled windows, looked at while an encoder trains.

The probe is a ridge regression in closed form: its score is a function of the features alone and leaves nothing to resume.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore, Window
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.errors import ArtifactError
from vjepa2cli.settings import ClipConfig

_BATCH = 8
_RIDGE = 1.0
_Places = list[tuple[VideoEntry, Window]]


@dataclass(frozen=True)
class OnlineProbe:
    """The same labelled windows of training and validation videos at every look, cut like the clips that are trained on."""

    store: VideoStore
    train: _Places
    held_out: _Places
    shape: ClipConfig

    @classmethod
    def of(cls, store: VideoStore, *, windows: int, shape: ClipConfig) -> Self | None:
        """At most `windows` of each split, evenly spread; None where they are not labelled, or of one class."""
        train, held_out = (_spread(store, split, windows) for split in ("train", "val"))
        classes = {window.label for _, window in train}
        return cls(store, train, held_out, shape) if held_out and len(classes) > 1 else None

    @torch.no_grad()
    def accuracy(
        self, features: Callable[[Tensor], Tensor], *, device: torch.device, skipped: list[str] | None = None
    ) -> float | None:
        """Accuracy on the validation windows; `features` turns clips [B, 3, F, Y, X] into tokens [B, N, D].

        A window that cannot be read is left out and the reason added to `skipped`; without that, raises ArtifactError. None where
        too few are left to tell classes apart.
        """
        train, train_labels = self._features(self.train, features, device, skipped)
        held_out, held_out_labels = self._features(self.held_out, features, device, skipped)
        if len(held_out_labels) == 0 or len(set(train_labels.tolist())) < 2:
            return None
        return ridge_accuracy(train, train_labels, held_out, held_out_labels)

    def _features(
        self, places: _Places, features: Callable[[Tensor], Tensor], device: torch.device, skipped: list[str] | None
    ) -> tuple[Tensor, Tensor]:
        """Mean tokens [M, D] and class numbers [M] of the windows that can be read."""
        pooled: list[Tensor] = [torch.empty(0)]
        labels: list[int] = []
        for start in range(0, len(places), _BATCH):
            clips = []
            for entry, window in places[start : start + _BATCH]:
                try:
                    clips.append(self._clip(entry, window))
                except ArtifactError as error:
                    if skipped is None:
                        raise
                    skipped.append(str(error))
                    continue
                labels.append(self.store.labels.index(window.label))
            if clips:
                pooled.append(features(torch.stack(clips).to(device)).mean(dim=1).cpu())
        return torch.cat(pooled[1:] or pooled), torch.tensor(labels, dtype=torch.int64)

    def _clip(self, entry: VideoEntry, window: Window) -> Tensor:
        last = min(window.start + window.num_frames, entry.num_frames) - 1
        indices = np.linspace(window.start, last, self.shape.num_frames).round().astype(np.int64)
        return torch.as_tensor(frame_transform(self.store.frames_at(entry.key, indices), crop=self.shape.crop)).transpose(0, 1)


def _spread(store: VideoStore, split: str, count: int) -> _Places:
    places = [(entry, window) for entry in store.entries if entry.split == split for window in entry.windows]
    count = min(count, len(places))
    return [places[index * len(places) // count] for index in range(count)]


def ridge_accuracy(train: Tensor, train_labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> float:
    """Accuracy on held-out features [M, D] of a ridge regression from standardised features [M', D] onto their classes.

    NaN where features are not finite, which have no order.
    """
    if not bool(train.isfinite().all() and held_out.isfinite().all()):
        return math.nan
    mean, std = train.double().mean(dim=0), train.double().std(dim=0).clamp_min(1e-6)
    inputs, tested = ((side.double() - mean) / std / train.shape[1] ** 0.5 for side in (train, held_out))
    targets = F.one_hot(train_labels, int(train_labels.max()) + 1).double()
    offset = targets.mean(dim=0)
    kernel = inputs @ inputs.T + _RIDGE * torch.eye(len(inputs), dtype=torch.float64)
    scores = tested @ inputs.T @ torch.linalg.solve(kernel, targets - offset) + offset
    return float((scores.argmax(dim=1) == held_out_labels).double().mean())
