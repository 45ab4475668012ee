"""Arrays at known places of a file, read and written without HDF5: by several threads, and its structure never changes."""

import os
from pathlib import Path

import h5py
import numpy as np

from vjepa2cli.artifacts.latent_store.header import Array


class Place:
    """Where the rows of a contiguous HDF5 array lie in its file."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._offset: int = dataset.id.get_offset()
        self._shape, self._dtype = dataset.shape[1:], dataset.dtype
        self._row_bytes = int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    def read(self, descriptor: int, start: int, count: int) -> Array:
        """Rows [start, start + count) of the file behind `descriptor`; raises EOFError where it ends before."""
        rows = np.empty((count, *self._shape), self._dtype)
        view, position = rows.reshape(-1).view(np.uint8).data, self._offset + start * self._row_bytes
        while view:
            taken = os.preadv(descriptor, [view], position)
            if not taken:
                raise EOFError
            view, position = view[taken:], position + taken
        return rows

    def write(self, descriptor: int, start: int, rows: Array) -> None:
        """Put rows at `start`; raises OSError where the disk is full."""
        view = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        position = self._offset + start * self._row_bytes
        while view:
            taken = os.pwrite(descriptor, view, position)
            view, position = view[taken:], position + taken


def places_of(path: Path) -> dict[str, Place]:
    """The places of the arrays of a file of latents that are filled after it was laid out."""
    with h5py.File(path, "r", locking=False) as file:
        return {name: Place(file[name]) for name in ("steps", "scales", "done") if name in file}
