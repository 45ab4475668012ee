"""Where everything lies in one file of latents.

    steps [N, H*W, D]       latents of all steps, one after the other: an episode's views in order, episode by episode
    scales [N, H*W]         of int8 latents
    first [V, n]            where in `steps` a view of an episode begins; -1 where it has none
    tokens [n, T, H*W, D]   a view on `steps`, for whoever opens the file with something else; padding takes no room and is NaN
    states, actions, extrinsics, lengths, episodes, split
    done [n]                which episodes are there

The file is laid out, closed, and only then filled in place. So nothing of its structure changes any more, a kill at any moment
leaves a file that opens, and others may read it while it grows. Contiguous data are read at least as fast as chunked.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from vjepa2cli.artifacts.latent_store.header import SCHEMA, Array, Episode, LatentHeader
from vjepa2cli.artifacts.latent_store.numbers import FORMATS, NumberFormat


@dataclass(frozen=True)
class Layout:
    """What a file of latents is to hold: `num_views` of every step of a training episode, the plain one of the others."""

    header: LatentHeader
    episodes: Sequence[Episode]
    dtype: str
    num_views: int = 1

    @property
    def format(self) -> NumberFormat:
        """How the latents are kept."""
        return FORMATS[self.dtype]

    @cached_property
    def first(self) -> npt.NDArray[np.int64]:
        """Where in `steps` each view of each episode begins, [V, n]; -1 where it has none."""
        first, total = np.full((self.num_views, len(self.episodes)), -1, np.int64), 0
        for index, episode in enumerate(self.episodes):
            for view in range(self.views_of(index)):
                first[view, index] = total
                total += episode.length
        return first

    def views_of(self, index: int) -> int:
        """How many views an episode has."""
        return self.num_views if self.episodes[index].split == "train" else 1

    @property
    def num_steps(self) -> int:
        """Steps of all views of all episodes."""
        return sum(self.views_of(index) * episode.length for index, episode in enumerate(self.episodes))

    @property
    def num_bytes(self) -> int:
        """What the latents take on disk; the rest is small beside them."""
        return sum(map(self.episode_bytes, range(len(self.episodes))))

    def episode_bytes(self, index: int) -> int:
        """What the latents of one episode take."""
        tokens, width = self.header.token_shape
        return self.views_of(index) * self.episodes[index].length * tokens * self.format.token_bytes(width)

    def write(self, path: Path) -> None:
        """Make the file, with room for the latents."""
        tokens, width = self.header.token_shape
        with h5py.File(path, "w") as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["header"] = json.dumps(asdict(self.header), sort_keys=True)
            file.attrs["torch_dtype"] = self.dtype
            self._write_rows(file)
            file["done"] = np.zeros(len(self.episodes), np.uint8)
            _make_room(file, "steps", (self.num_steps, tokens, width), self.format.stored)
            file["steps"].attrs["torch_dtype"] = self.dtype
            if self.format.has_scales:
                _make_room(file, "scales", (self.num_steps, tokens), np.dtype("<f4"))
            self._write_tokens(file, (self.num_steps, tokens, width))

    def _write_rows(self, file: h5py.File) -> None:
        """What is known without the latents."""
        episodes, longest = self.episodes, max(episode.length for episode in self.episodes)
        file["lengths"] = np.array([episode.length for episode in episodes], np.int64)
        file["first"] = self.first
        file["episodes"] = np.asarray([episode.name for episode in episodes], dtype=h5py.string_dtype())
        file["split"] = np.asarray([episode.split for episode in episodes], dtype=h5py.string_dtype())
        file["states"] = _padded([episode.states for episode in episodes], longest)
        file["actions"] = _padded([episode.actions for episode in episodes], longest - 1)
        extrinsics = [episode.extrinsics for episode in episodes]
        if all(rows is not None for rows in extrinsics):
            file["extrinsics"] = _padded([rows for rows in extrinsics if rows is not None], longest)

    def _write_tokens(self, file: h5py.File, shape: tuple[int, ...]) -> None:
        longest = max(episode.length for episode in self.episodes)
        view = h5py.VirtualLayout((len(self.episodes), longest, *shape[1:]), dtype=self.format.stored)
        steps = h5py.VirtualSource(".", "steps", shape=shape, dtype=self.format.stored)
        for index, episode in enumerate(self.episodes):
            start = int(self.first[0, index])
            view[index, : episode.length] = steps[start : start + episode.length]
        view.dcpl.set_obj_track_times(False)  # the same content gives the same bytes
        file.create_virtual_dataset("tokens", view, fillvalue=self.format.padding)
        file["tokens"].attrs["torch_dtype"] = self.dtype


def _make_room(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """An array whose place in the file is fixed now; nothing is written to it, so it takes room on disk as it is filled."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    kind = h5py.h5t.py_create(dtype, logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), settings)


def _padded(rows: Sequence[Array], length: int) -> npt.NDArray[np.float32]:
    """Arrays [T_i, N] in one, [n, length, N], with NaN behind them."""
    padded = np.full((len(rows), length, rows[0].shape[-1]), np.nan, np.float32)
    for whole, part in zip(padded, rows, strict=True):
        whole[: len(part)] = part
    return padded
