"""Latent store: frozen latents of whole trajectories in HDF5, with the states and actions that go with them.

`tokens [n, T, H*W, D]` holds episode i in its first `lengths[i]` steps. A chunk is one step and padding is never written, so
it takes no room on disk and reads as NaN. The file is written as `<name>.<pid>.partial` and renamed when it is whole.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_bytes, replaced_atomically

SCHEMA = "vjepa2cli.latents/1"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LatentHeader:
    """What a latent store is bound to; `state_space` says what the numbers of a state are, None those of an end effector."""

    encoder_source: str
    encoder_digest: str
    layer_norm: bool
    grid: tuple[int, int, int]
    embed_dim: int
    rate: float
    robot: str
    preprocessing: dict[str, Any]
    provenance: dict[str, Any]
    state_space: dict[str, Any] | None = None


class LatentWriter:
    """Fills a latent store episode by episode."""

    def __init__(
        self, file: h5py.File, header: LatentHeader, *, lengths: Sequence[int], dtype: str, dims: tuple[int, int]
    ) -> None:
        """Lay out the file for episodes of the given lengths; `dims` are the state and action widths."""
        count, longest = len(lengths), max(lengths)
        tokens = header.grid[1] * header.grid[2]
        self._file = file
        file.attrs["schema"] = SCHEMA
        file.attrs["header"] = json.dumps(asdict(header), sort_keys=True)
        self._tokens = file.create_dataset(
            "tokens",
            (count, longest, tokens, header.embed_dim),
            dtype=dtype,
            chunks=(1, 1, tokens, header.embed_dim),
            fillvalue=np.nan,
        )
        self._states = file.create_dataset("states", (count, longest, dims[0]), dtype="f4", fillvalue=np.nan)
        self._actions = file.create_dataset("actions", (count, longest - 1, dims[1]), dtype="f4", fillvalue=np.nan)
        file["lengths"] = np.asarray(lengths, dtype=np.int64)

    def write(self, index: int, tokens: Array, *, states: Array, actions: Array) -> None:
        """Store episode `index`: tokens [T, H*W, D], states [T, S], actions [T-1, A]."""
        length = len(tokens)
        assert length == len(states) == len(actions) + 1 == self._file["lengths"][index]
        self._tokens[index, :length] = tokens
        self._states[index, :length] = states
        self._actions[index, : length - 1] = actions

    def name_episodes(self, episodes: Sequence[str], splits: Sequence[str]) -> None:
        """Store the episodes' names and whether each is for training (`train`) or held out (`val`)."""
        self._file["episodes"] = np.asarray(episodes, dtype=h5py.string_dtype())
        self._file["split"] = np.asarray(splits, dtype=h5py.string_dtype())


@contextmanager
def create(
    path: Path, header: LatentHeader, *, lengths: Sequence[int], dtype: str, dims: tuple[int, int]
) -> Iterator[LatentWriter]:
    """Open a writer whose file appears at `path` only if the block ends well."""
    with replaced_atomically(path) as partial, h5py.File(partial, "w") as file:
        yield LatentWriter(file, header, lengths=lengths, dtype=dtype, dims=dims)


class LatentStore:
    """Reads a latent store; the file stays open for the object's life."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        """Use `LatentStore.open` instead."""
        self.path = path
        self._file = file
        header = json.loads(file.attrs["header"])
        self.header = LatentHeader(**(header | {"grid": tuple(header["grid"])}))
        self.lengths: list[int] = file["lengths"][:].tolist()
        self.episodes: list[str] = [name.decode() for name in file["episodes"][:]]
        self.split: list[str] = [name.decode() for name in file["split"][:]]
        self._all_states, self._all_actions = file["states"][:], file["actions"][:]

    @classmethod
    def open(cls, path: Path) -> "LatentStore":
        """Open a whole store; raises ArtifactError where it is absent, damaged, or no latent store."""
        if not path.is_file():
            raise ArtifactError(f"{path}: no such latent store; 'vjepa2 precompute' writes it")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise ArtifactError(f"{path}: not a readable HDF5 file ({error}); run 'vjepa2 precompute' again") from None
        if file.attrs.get("schema") != SCHEMA:
            raise ArtifactError(f"{path}: is not a latent store of schema {SCHEMA}; run 'vjepa2 precompute' again")
        return cls(path, file)

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
    def digest(self) -> str:
        """SHA-256 over names, lengths, states, actions and the header; the tokens follow from these."""
        return digest_bytes(
            self._file.attrs["header"].encode(), json.dumps([self.episodes, self.split, self.lengths]).encode(),
            self._all_states.tobytes(), self._all_actions.tobytes(),
        )  # fmt: skip

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Latents of steps [start, stop) of one episode: [T, H*W, D] float32."""
        stop = self.lengths[index] if stop is None else stop
        if not 0 <= start < stop <= self.lengths[index]:
            raise ArtifactError(
                f"{self.path}: steps {start}:{stop} of {self.episodes[index]} are not within 0:{self.lengths[index]}"
            )
        return np.asarray(self._file["tokens"][index, start:stop], dtype=np.float32)

    def states(self, index: int) -> npt.NDArray[np.float32]:
        """States of one episode: [T, S]."""
        return np.asarray(self._all_states[index, : self.lengths[index]])

    def actions(self, index: int) -> npt.NDArray[np.float32]:
        """Actions of one episode: [T-1, A]; action t leads from state t to state t+1."""
        return np.asarray(self._all_actions[index, : self.lengths[index] - 1])

    def of_split(self, split: str) -> list[int]:
        """Indices of the episodes of a split: 'train', 'val' or 'all'."""
        return [index for index, name in enumerate(self.split) if split in ("all", name)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
