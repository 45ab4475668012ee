"""Frozen tokens on disk for one split of labelled clips, as many rows as there is room for, and the mean token of every row.

A folder: `tokens.npy` [rows, N, D] float16, `means.npy` [count, D] float32, `done.npy` [count] uint8, and `header.json`, which
says of which encoder, clips and settings they are. Rows are written in any order; a run that was killed goes on.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import StaleArtifactError
from vjepa2cli.files import read_json, write_json

SCHEMA = "vjepa2cli.features/1"
_TOKENS, _MEANS, _DONE = "tokens.npy", "means.npy", "done.npy"


class FeatureCache:
    """Rows by number; those from `num_kept` on have a mean token and no tokens, and must be encoded when they are asked for."""

    def __init__(self, folder: Path, *, mode: str) -> None:
        self._folder = folder
        self._done = np.lib.format.open_memmap(folder / _DONE, mode=mode)
        self._means = np.lib.format.open_memmap(folder / _MEANS, mode=mode)
        self._tokens = np.lib.format.open_memmap(folder / _TOKENS, mode=mode)

    @classmethod
    def open(cls, folder: Path, header: Mapping[str, Any], *, count: int, kept: int, shape: tuple[int, int]) -> Self:
        """Open or create the cache of `count` rows of tokens [N, D] = `shape`, of which `kept` have room.

        Raises StaleArtifactError where the folder holds the features of something else.
        """
        about = dict(header) | {"schema": SCHEMA, "count": count, "shape": list(shape)}
        if (folder / "header.json").is_file():
            _require_same(folder, read_json(folder / "header.json"), about)
            return cls(folder, mode="r+")
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, tuple[tuple[int, ...], Any]] = {
            _TOKENS: ((kept, *shape), np.float16),
            _MEANS: ((count, shape[1]), np.float32),
            _DONE: ((count,), np.uint8),
        }
        for name, (size, dtype) in arrays.items():
            np.lib.format.open_memmap(folder / name, mode="w+", shape=size, dtype=dtype).flush()
        write_json(folder / "header.json", about)
        return cls(folder, mode="r+")

    @property
    def num_kept(self) -> int:
        """How many rows have their tokens here."""
        return len(self._tokens)

    def missing(self) -> list[int]:
        """Rows that were not written yet."""
        return np.flatnonzero(self._done == 0).tolist()

    def write(self, row: int, tokens: NDArray[np.floating]) -> None:
        """Store the tokens [N, D] of a row, as far as there is room, and their mean."""
        self._means[row] = tokens.mean(axis=0, dtype=np.float32)
        if row < self.num_kept:
            self._tokens[row] = tokens
        self._done[row] = 1

    def read(self, rows: Sequence[int]) -> NDArray[np.float16]:
        """Tokens [len(rows), N, D] of rows below `num_kept`."""
        return np.stack([self._tokens[row] for row in rows])

    def means(self) -> NDArray[np.float32]:
        """The mean token of every row, [count, D]."""
        return np.array(self._means)


def _require_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in sorted(wanted):
        if found.get(key) != wanted[key]:
            was, now = (json.dumps(side.get(key))[:60] for side in (found, wanted))
            what = "another encoder" if key == "encoder" else f"another {key}"
            raise StaleArtifactError(
                f"{folder}: holds features of {what} ({was}, and {now} is wanted); give another --cache, remove this folder, or "
                "use --replace where it is in the run directory"
            )
