"""Pieces of trajectories to train on: which ones a batch holds is a function of (seed, step, row); threads read them ahead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vjepa2cli.data.prefetch import Prefetcher
from vjepa2cli.errors import InputError


class LatentSource(Protocol):
    """What windows are cut from; `artifacts.latent_store.LatentStore` is one."""

    @property
    def lengths(self) -> Sequence[int]:
        """Steps in each episode."""

    def num_views(self, index: int) -> int:
        """How many views there are of an episode."""

    def latents(self, index: int, start: int, stop: int, *, view: int) -> Tensor:
        """Latents of steps [start, stop) of a view of an episode, [T, H*W, D], as they are kept."""

    def states(self, index: int) -> npt.NDArray[np.float32]:
        """States of an episode, [T, S]."""

    def actions(self, index: int) -> npt.NDArray[np.float32]:
        """Actions of an episode, [T-1, A]."""

    def extrinsics(self, index: int) -> npt.NDArray[np.float32]:
        """The camera's extrinsics in an episode, [T, 6]."""


@dataclass(frozen=True)
class Windows:
    """Pieces of trajectories: `latents` [B, T, H*W, D] as they are kept, and float32 the rest.

    `states` [B, T, S], `actions` [B, T-1, A], `extrinsics` [B, T, 6] where they are asked for.
    """

    latents: Tensor
    states: Tensor
    actions: Tensor
    extrinsics: Tensor | None = None

    def to(self, device: torch.device) -> "Windows":
        """The same on another device, the latents as float32."""
        latents = self.latents.to(device, non_blocking=True).float()
        view = None if self.extrinsics is None else self.extrinsics.to(device)
        return Windows(latents, self.states.to(device), self.actions.to(device), view)


@dataclass(frozen=True)
class _Place:
    """Where a window is cut from."""

    episode: int
    start: int
    view: int = 0


class WindowBatches:
    """Windows of `num_frames` steps, each possible start in an episode equally likely, and so is each of its views."""

    def __init__(
        self,
        store: LatentSource,
        episodes: Sequence[int],
        *,
        num_frames: int,
        seed: int,
        with_extrinsics: bool = False,
        threads: int = 0,
        pinned: bool = False,
    ) -> None:
        """`threads` read ahead, into `pinned` memory if asked. Raises InputError where no episode is long enough."""
        self._store, self._num_frames, self._seed = store, num_frames, seed
        self._with_extrinsics, self._pinned = with_extrinsics, pinned
        self._episodes = [index for index in episodes if store.lengths[index] >= num_frames]
        if not self._episodes:
            raise InputError(
                f"no episode has {num_frames} steps, the length of a training window; lower num_frames or record longer ones"
            )
        starts = np.array([store.lengths[index] - num_frames + 1 for index in self._episodes])
        self._ends = np.cumsum(starts)
        self._ahead = Prefetcher(self._plan, threads=threads)

    @property
    def count(self) -> int:
        """How many different windows there are of the plain view."""
        return int(self._ends[-1])

    def batch(self, step: int, *, rows: range) -> Windows:
        """Rows of the global batch of `step`."""
        return self._ahead.get(step, rows)

    def ids(self, step: int, *, rows: range) -> tuple[str, ...]:
        """Where the rows of a batch are cut from: `episode N first:last`, in stored steps, and the view if it is another one."""
        last = self._num_frames - 1
        return tuple(
            f"episode {place.episode} {place.start}:{place.start + last}" + (f" view {place.view}" if place.view else "")
            for place in self._drawn(step, rows)
        )

    def close(self) -> None:
        """End the threads that read ahead."""
        self._ahead.close()

    def _drawn(self, step: int, rows: range) -> list[_Place]:
        return [self._draw(np.random.default_rng([self._seed, step, row])) for row in rows]

    def _draw(self, rng: np.random.Generator) -> _Place:
        place = self._place(int(rng.integers(self.count)))
        num_views = self._store.num_views(place.episode)
        return place if num_views == 1 else _Place(place.episode, place.start, int(rng.integers(num_views)))

    def spread(self, count: int) -> list[int]:
        """Numbers of at most `count` windows, always the same, evenly spread over the episodes."""
        count = min(count, self.count)
        return [number * self.count // count for number in range(count)]

    def windows(self, numbers: Sequence[int]) -> Windows:
        """Windows of the plain view by number in [0, count)."""
        return self._read([self._place(number) for number in numbers])

    def _place(self, number: int) -> _Place:
        place = int(np.searchsorted(self._ends, number, side="right"))
        return _Place(self._episodes[place], number - (int(self._ends[place - 1]) if place else 0))

    def _read(self, places: Sequence[_Place]) -> Windows:
        windows, tasks = self._fill(places)
        for task in tasks:
            task()
        return windows

    def _plan(self, step: int, rows: range) -> tuple[Windows, list[Callable[[], None]]]:
        return self._fill(self._drawn(step, rows))

    def _fill(self, places: Sequence[_Place]) -> tuple[Windows, list[Callable[[], None]]]:
        """Windows but for their latents, and what reads those."""
        like = self._store.latents(places[0].episode, 0, 1, view=0)
        latents = torch.empty(len(places), self._num_frames, *like.shape[1:], dtype=like.dtype, pin_memory=self._pinned)
        windows = Windows(
            latents,
            self._stacked(self._store.states, places, self._num_frames),
            self._stacked(self._store.actions, places, self._num_frames - 1),
            self._stacked(self._store.extrinsics, places, self._num_frames) if self._with_extrinsics else None,
        )
        return windows, [partial(self._read_latents, row, place) for row, place in zip(latents, places, strict=True)]

    def _read_latents(self, row: Tensor, place: _Place) -> None:
        row.copy_(self._store.latents(place.episode, place.start, place.start + self._num_frames, view=place.view))

    @staticmethod
    def _stacked(rows: Callable[[int], npt.NDArray[np.float32]], places: Sequence[_Place], length: int) -> Tensor:
        return torch.from_numpy(np.stack([rows(place.episode)[place.start : place.start + length] for place in places]))
