"""Fills a file of latents episode by episode; a killed writer is gone on from, and what it had finished is kept."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store.binding import require_same
from vjepa2cli.artifacts.latent_store.header import Array, Episode, LatentHeader
from vjepa2cli.artifacts.latent_store.layout import Layout
from vjepa2cli.artifacts.latent_store.places import places_of
from vjepa2cli.artifacts.latent_store.reading import read_header
from vjepa2cli.artifacts.locks import lock
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import replaced_atomically


def partial_path(path: Path) -> Path:
    """Where the file that is to be at `path` grows."""
    return path.with_name(f"{path.name}.partial")


class LatentWriter:
    """Puts latents in their places; an episode counts once `finish` was called for it."""

    def __init__(self, partial: Path, layout: Layout) -> None:
        self._layout, self._places = layout, places_of(partial)
        self._file = os.open(partial, os.O_RDWR)

    @property
    def left(self) -> list[int]:
        """Episodes that are still to be written."""
        done = self._places["done"].read(self._file, 0, len(self._layout.episodes))
        return np.flatnonzero(done == 0).tolist()

    def write(self, index: int, latents: Tensor, *, start: int = 0, view: int = 0) -> None:
        """Store latents [T, H*W, D] of steps from `start` on of one view of episode `index`; raises OSError on a full disk."""
        assert view < self._layout.views_of(index)
        assert start + len(latents) <= self._layout.episodes[index].length
        place = int(self._layout.first[view, index]) + start
        stored, scales = self._layout.format.pack(latents)
        self._places["steps"].write(self._file, place, stored)
        if scales is not None:
            self._places["scales"].write(self._file, place, scales)

    def finish(self, index: int) -> None:
        """Say that all views of an episode are there, once they are safe on disk."""
        os.fdatasync(self._file)
        self._places["done"].write(self._file, index, np.ones(1, np.uint8))

    def close(self) -> None:
        """Let everything reach the disk, and close the file."""
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)


@contextmanager
def open_writer(path: Path, layout: Layout) -> Iterator[LatentWriter]:
    """Begin the file of `layout`, or go on with it; it is named `<name>.partial` until the block has written all of it.

    Raises StaleArtifactError where it was begun for something else, ArtifactError where another process is at it.
    """
    partial = partial_path(path)
    if not partial.exists():
        with replaced_atomically(partial) as fresh:
            layout.write(fresh)
    held = lock(partial)
    if held is None:
        raise ArtifactError(f"{path}: another process is writing it; let it finish, or write another --shard")
    try:
        require_same(partial, read_header(partial), layout.header)
        writer = LatentWriter(partial, layout)
        try:
            yield writer
            whole = not writer.left
        finally:
            writer.close()
        if whole:
            partial.replace(path)
    finally:
        os.close(held)


class _Gathering:
    """Takes the rows of episodes one by one, in any order."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Array, Array, Array]] = {}
        self.names: Sequence[str] = ()
        self.splits: Sequence[str] = ()

    def write(self, index: int, tokens: Array, *, states: Array, actions: Array) -> None:
        """Take episode `index`: tokens [T, H*W, D], states [T, S], actions [T-1, A]."""
        self.rows[index] = (tokens, states, actions)

    def name_episodes(self, episodes: Sequence[str], splits: Sequence[str]) -> None:
        """Take the episodes' names and whether each is for training (`train`) or held out (`val`)."""
        self.names, self.splits = episodes, splits


@contextmanager
def create(path: Path, header: LatentHeader, *, dtype: str, **_: object) -> Iterator[_Gathering]:
    """Write latents that are at hand; the file appears at `path` only if the block ends well."""
    gathered = _Gathering()
    yield gathered
    kept = [gathered.rows[index] for index in range(len(gathered.names))]
    episodes = [
        Episode(name, split, np.asarray(states, np.float32), np.asarray(actions, np.float32))
        for name, split, (_tokens, states, actions) in zip(gathered.names, gathered.splits, kept, strict=True)
    ]
    with replaced_atomically(path) as partial:
        layout = Layout(header, episodes, dtype)
        layout.write(partial)
        writer = LatentWriter(partial, layout)
        try:
            for index, (tokens, _states, _actions) in enumerate(kept):
                writer.write(index, torch.from_numpy(np.ascontiguousarray(tokens)))
                writer.finish(index)
        finally:
            writer.close()
