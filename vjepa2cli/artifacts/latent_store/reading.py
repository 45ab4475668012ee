"""Reads latents, from one file or from an index of several; several threads may read at once."""

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from vjepa2cli.artifacts.latent_store.header import SCHEMA, LatentHeader
from vjepa2cli.artifacts.latent_store.numbers import FORMATS
from vjepa2cli.artifacts.latent_store.places import Place
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_bytes

_AGAIN = "run 'vjepa2 precompute' again"


@dataclass(frozen=True)
class _File:
    """One file of latents: what is known of its episodes, and where their latents lie."""

    path: Path
    descriptor: int
    header_text: str
    dtype: str
    episodes: list[str]
    split: list[str]
    lengths: list[int]
    first: npt.NDArray[np.int64]
    rows: dict[str, npt.NDArray[np.float32]]
    places: dict[str, Place]

    @classmethod
    def open(cls, path: Path) -> "_File":
        """Raises ArtifactError where the file is absent, damaged, or holds no latents."""
        with _opened(path) as file:
            if "members" in file.attrs:
                raise ArtifactError(f"{path}: is an index of other files, not a member of one")
            return cls(
                path,
                os.open(path, os.O_RDONLY),
                str(file.attrs["header"]),
                str(file.attrs["torch_dtype"]),
                [name.decode() for name in file["episodes"][:]],
                [name.decode() for name in file["split"][:]],
                file["lengths"][:].tolist(),
                file["first"][:],
                {name: file[name][:] for name in ("states", "actions", "extrinsics") if name in file},
                {name: Place(file[name]) for name in ("steps", "scales", "done") if name in file},
            )

    @property
    def header(self) -> LatentHeader:
        """What the file is bound to."""
        header = json.loads(self.header_text)
        return LatentHeader(**(header | {"grid": tuple(header["grid"])}))

    def is_done(self, index: int) -> bool:
        """Whether an episode's latents are there."""
        return bool(self.places["done"].read(self.descriptor, index, 1)[0])

    def read(self, index: int, start: int, stop: int, view: int) -> Tensor:
        """Latents of steps [start, stop) of a view, [T, H*W, D]."""
        place = int(self.first[view, index]) + start
        try:
            stored = self.places["steps"].read(self.descriptor, place, stop - start)
            scales = self.places["scales"].read(self.descriptor, place, stop - start) if "scales" in self.places else None
        except EOFError:
            raise ArtifactError(f"{self.path}: is cut short; {_AGAIN}") from None
        return FORMATS[self.dtype].unpack(stored, scales)


def read_header(path: Path) -> LatentHeader:
    """What a file of latents, or the first member of an index, is bound to; see `LatentStore.open` for what is raised."""
    store = LatentStore(path, _files(path))
    store.close()
    return store.header


class LatentStore:
    """A latent store; its files stay open for the object's life.

    One that is `growing` gives the episodes that are there by now: see `is_done` and `of_split`.
    """

    def __init__(self, path: Path, files: Sequence[_File], *, growing: bool = False) -> None:
        """Use `LatentStore.open` instead."""
        self.path, self._files, self._growing = path, files, growing
        self.header, self.dtype = files[0].header, files[0].dtype
        self.lengths: list[int] = [length for file in files for length in file.lengths]
        self.episodes: list[str] = [name for file in files for name in file.episodes]
        self.split: list[str] = [name for file in files for name in file.split]
        self._where = [(file, index) for file in files for index in range(len(file.lengths))]
        self._num_views = [int(count) for file in files for count in (file.first >= 0).sum(axis=0)]

    @classmethod
    def open(cls, path: Path, *, growing: bool = False) -> "LatentStore":
        """Open a whole store, or with `growing` one that is still being written, of whose files some may not be there yet.

        Raises ArtifactError where it is absent, damaged, no latent store, or an index one of whose members is missing.
        """
        if not path.is_file() and growing:
            files = [_File.open(part) for part in _begun(path)]
            if files:
                return cls(path, files, growing=True)
        return cls(path, _files(path))

    @property
    def encoder_source(self) -> str:
        """Where the encoder was loaded from."""
        return self.header.encoder_source

    @property
    def encoder_digest(self) -> str:
        """Digest of the encoder's weights."""
        return self.header.encoder_digest

    @property
    def layer_norm(self) -> bool:
        """Whether the tokens are layer-normed."""
        return self.header.layer_norm

    @property
    def grid(self) -> tuple[int, int, int]:
        """The token grid of one step: (1, H, W)."""
        return self.header.grid

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How frames became the encoder's input: crop in pixels, and geometry."""
        return self.header.preprocessing

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.header.rate

    @property
    def robot(self) -> str:
        """The robot that was recorded."""
        return self.header.robot

    @property
    def state_space(self) -> dict[str, Any] | None:
        """What the numbers of a state and of an action are; None where they are an end effector's."""
        return self.header.state_space

    @property
    def has_extrinsics(self) -> bool:
        """Whether the camera's extrinsics are known for every episode."""
        return all("extrinsics" in file.rows for file in self._files)

    @property
    def digest(self) -> str:
        """SHA-256 over names, lengths, states, actions and the header; the tokens follow from these, however they are sharded."""
        rows = [self.states(index).tobytes() + self.actions(index).tobytes() for index in range(len(self.lengths))]
        return digest_bytes(
            self._files[0].header_text.encode(), json.dumps([self.episodes, self.split, self.lengths]).encode(), *rows
        )

    def num_views(self, index: int) -> int:
        """How many views there are of every step of an episode; the first is the plain one."""
        return self._num_views[index]

    def tokens(self, index: int, start: int = 0, stop: int | None = None, *, view: int = 0) -> npt.NDArray[np.float32]:
        """Latents of steps [start, stop) of one episode: [T, H*W, D] float32."""
        stop = self.lengths[index] if stop is None else stop
        # torch widens half precision far quicker than NumPy, which has no vector code for it.
        return self.latents(index, start, stop, view=view).float().numpy()

    def latents(self, index: int, start: int, stop: int, *, view: int = 0) -> Tensor:
        """The same as they are kept: float16, bfloat16 or float32, the last also of int8."""
        file, own = self._where[index]
        if not 0 <= start < stop <= self.lengths[index] or not 0 <= view < self.num_views(index):
            raise ArtifactError(
                f"{self.path}: steps {start}:{stop} of view {view} of {self.episodes[index]} are not within "
                f"0:{self.lengths[index]} of {self.num_views(index)} views"
            )
        if self._growing and not file.is_done(own):
            raise ArtifactError(f"{self.path}: {self.episodes[index]} is not there yet; ask for those that is_done tells")
        return file.read(own, start, stop, view)

    def states(self, index: int) -> npt.NDArray[np.float32]:
        """States of one episode: [T, S]."""
        return self._rows("states", index, self.lengths[index])

    def actions(self, index: int) -> npt.NDArray[np.float32]:
        """Actions of one episode: [T-1, A]; action t leads from state t to state t+1."""
        return self._rows("actions", index, self.lengths[index] - 1)

    def extrinsics(self, index: int) -> npt.NDArray[np.float32]:
        """The camera's extrinsics in one episode, [T, 6], where `has_extrinsics`."""
        return self._rows("extrinsics", index, self.lengths[index])

    def _rows(self, name: str, index: int, length: int) -> npt.NDArray[np.float32]:
        file, own = self._where[index]
        return np.asarray(file.rows[name][own, :length])

    def is_done(self, index: int) -> bool:
        """Whether an episode's latents are there; of a whole store all are."""
        file, own = self._where[index]
        return not self._growing or file.is_done(own)

    def of_split(self, split: str) -> list[int]:
        """Indices of the episodes of a split: 'train', 'val' or 'all'; of a growing store, of those that are there by now."""
        return [index for index, name in enumerate(self.split) if split in ("all", name) and self.is_done(index)]

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file.descriptor)


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such latent store; 'vjepa2 precompute' writes it")
    try:
        # Whoever fills a file holds a lock on it, and changes nothing that HDF5 reads.
        file = h5py.File(path, "r", locking=False if path.suffix == ".partial" else None)
    except OSError as error:
        raise ArtifactError(f"{path}: not a readable HDF5 file ({error}); {_AGAIN}") from None
    if file.attrs.get("schema") != SCHEMA:
        file.close()
        raise ArtifactError(f"{path}: is not a latent store of schema {SCHEMA}; {_AGAIN}")
    return file


def _files(path: Path) -> list[_File]:
    """The file, or the members that it names; raises ArtifactError where one is missing or is not the one that was meant."""
    with _opened(path) as file:
        if "members" not in file.attrs:
            return [_File.open(path)]
        members = json.loads(file.attrs["members"])
    absent = [member["name"] for member in members if not (path.parent / member["name"]).is_file()]
    if absent:
        raise ArtifactError(
            f"{path}: {len(absent)} of its {len(members)} members are not beside it: {', '.join(absent[:3])}; put them there, or "
            f"{_AGAIN}"
        )
    files = []
    for member in members:
        files.append(_File.open(path.parent / member["name"]))
        if LatentStore(path, files[-1:]).digest != member["digest"]:
            raise ArtifactError(f"{files[-1].path}: is not the member that {path.name} was made of; {_AGAIN}")
    return files


def _begun(path: Path) -> list[Path]:
    """What there is of a store that is being written."""
    alone = path.with_name(f"{path.name}.partial")
    if alone.is_file():
        return [alone]
    pattern = f"{glob.escape(path.stem)}-[0-9]*-of-[0-9]*{glob.escape(path.suffix)}"
    return sorted(part for end in ("", ".partial") for part in path.parent.glob(pattern + end))
