"""Features in HDF5 and Zarr: one input a file, or a group for each input in one file. A door to h5py and zarr.

A group is written elsewhere and takes its place when it is whole. A Zarr store says `complete` when all its inputs are done; an
HDF5 file of several groups is put together from a file a group, since a process that is killed while it writes ruins such a file.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store.entry import METADATA, write_group
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import read_json, replaced_atomically

HEADER = "provenance"
SCHEMA = "vjepa2cli.features/1"
STORE_SCHEMA = "vjepa2cli.feature_store/1"
Array = NDArray[Any]

_CHUNK_BYTES = 1 << 20
_SHARD_BYTES = 16 << 20


class _DiscardedError(Exception):
    """Leaves a writer's context without a file."""


class _GrowingWriter:
    """Gathers rows of each array until they fill what is written at once."""

    block_bytes = _CHUNK_BYTES

    def __init__(self, path: Path) -> None:
        self._context = ExitStack()
        self._partial = self._context.enter_context(replaced_atomically(path))
        self._pending: dict[str, list[Array]] = {}

    def append(self, name: str, rows: Array) -> None:
        pending = [*self._pending.get(name, []), rows]
        block = self._block_rows(rows)
        if sum(map(len, pending)) >= block:
            gathered = np.concatenate(pending)
            whole = len(gathered) - len(gathered) % block
            self._grow(name, gathered[:whole], block=block)
            pending = [gathered[whole:]] if whole < len(gathered) else []
        # A copy, for what waits may be a small part of something large.
        self._pending[name] = [*pending[:-1], *(part.copy() for part in pending[-1:])]

    def commit(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        try:
            for name, pending in self._pending.items():
                if pending:
                    self._grow(name, np.concatenate(pending), block=self._block_rows(pending[0]))
            self._finish(arrays, header)
        except BaseException:
            self.discard()
            raise
        self._context.close()

    def discard(self) -> None:
        with suppress(_DiscardedError), self._context:
            self._close()
            raise _DiscardedError

    def _block_rows(self, rows: Array) -> int:
        return max(1, self.block_bytes // max(1, rows[:1].nbytes))

    def _grow(self, name: str, rows: Array, *, block: int) -> None:
        raise NotImplementedError

    def _finish(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """Let go of what is open."""


class H5Writer(_GrowingWriter):
    """One input in a file of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = h5py.File(self._partial, "w")

    def _grow(self, name: str, rows: Array, *, block: int) -> None:
        if name not in self._file:
            tail = rows.shape[1:]
            chunk = (min(block, len(rows)), *tail)
            self._file.create_dataset(name, data=rows, maxshape=(None, *tail), chunks=chunk)
            return
        dataset = self._file[name]
        dataset.resize(len(dataset) + len(rows), axis=0)
        dataset[-len(rows) :] = rows

    def _finish(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            self._file[name] = array
        self._file.attrs["schema"] = SCHEMA
        self._file[HEADER] = json.dumps(dict(header), sort_keys=True)
        self._close()

    def _close(self) -> None:
        self._file.close()


class ZarrWriter(_GrowingWriter):
    """One input as a group: a store of its own, or below the root of one."""

    block_bytes = _SHARD_BYTES

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._partial.mkdir()
        self._arrays: dict[str, Any] = {}

    def _grow(self, name: str, rows: Array, *, block: int) -> None:
        if name not in self._arrays:
            self._arrays[name] = self._create(name, rows, block=block)
        else:
            array = self._arrays[name]
            array.resize((array.shape[0] + len(rows), *rows.shape[1:]))
        self._arrays[name][-len(rows) :] = rows

    def _finish(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            self._create(name, array, block=0)[...] = array
        write_group(self._partial, {"schema": SCHEMA, HEADER: dict(header)})

    def _create(self, name: str, rows: Array, *, block: int) -> Any:
        """An array of the shape of `rows`; one that holds a whole block of rows already will grow, by shards of that many."""
        chunk = min(len(rows), max(1, _CHUNK_BYTES // rows[:1].nbytes)) if rows.ndim and len(rows) else 0
        sharded = 0 < block <= len(rows)
        shard = max(1, block // chunk) * chunk if sharded else 0
        return zarr.create_array(
            self._partial / name,
            shape=rows.shape,
            dtype=rows.dtype,
            chunks=(chunk, *rows.shape[1:]) if chunk else "auto",
            shards=(shard, *rows.shape[1:]) if sharded else None,
            # Of float features zstd takes less than a tenth off, and most of the time.
            compressors=None,
            # A shard that was lost reads as NaN, never as a feature.
            fill_value=np.nan if rows.dtype.kind == "f" else 0,
            zarr_format=3,
            config={"write_empty_chunks": True},
        )


def read_h5_headers(path: Path) -> dict[str, dict[str, Any]]:
    """The header of every input in a file by its group, "" where the file is one input; raises OSError where it is no HDF5."""
    headers: dict[str, dict[str, Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and item.attrs.get("schema") == SCHEMA:
            headers[name] = json.loads(item[HEADER].asstr()[()])

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return headers


def read_zarr_header(path: Path) -> dict[str, Any]:
    """The header of a group; raises KeyError or ArtifactError where it holds no features."""
    attributes = read_json(path / METADATA).get("attributes", {})
    if attributes.get("schema") != SCHEMA:
        raise KeyError(SCHEMA)
    return dict(attributes[HEADER])


def read_h5_blocks(path: Path, name: str) -> Iterator[Array]:
    """An array of a file, from its beginning, a few rows at a time."""
    with h5py.File(path, "r") as file:
        yield from _blocks(file[name])


def read_zarr_blocks(path: Path, name: str) -> Iterator[Array]:
    """An array of a group, from its beginning, a few rows at a time."""
    yield from _blocks(zarr.open_array(path / name, mode="r", zarr_format=3))


def _blocks(array: Any) -> Iterator[Array]:
    step = rows_at_once(array.shape, array.dtype)
    for start in range(0, array.shape[0], step):
        yield array[start : start + step]


def rows_at_once(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many rows of an array are read together."""
    return max(1, _SHARD_BYTES // max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize))


def refuse_other(path: Path, *, store: bool) -> None:
    """Raise ArtifactError unless an .h5 or .zarr at `path` is a store of many inputs or, as asked, the features of one."""
    if not path.exists():
        return
    found = None
    with suppress(OSError, ArtifactError):
        if path.suffix == ".zarr":
            found = read_json(path / METADATA).get("attributes", {}).get("schema")
        else:
            with h5py.File(path, "r") as file:
                found = file.attrs.get("schema")
    if found != (STORE_SCHEMA if store else SCHEMA):
        held = {SCHEMA: "the features of one input", STORE_SCHEMA: "the features of several inputs"}.get(str(found))
        raise ArtifactError(f"{path}: holds {held or 'something other than features'}; give another --out, or remove it")


def mark_zarr_store(path: Path, *, complete: bool) -> None:
    """Write the root group of a store of many inputs."""
    write_group(path, {"schema": STORE_SCHEMA, "complete": complete})


def make_parents(path: Path, group: str) -> None:
    """Make the groups between the root of a Zarr store and one of its groups."""
    for parent in list(Path(group).parents)[:-1]:
        if not (path / parent / METADATA).exists():
            write_group(path / parent, {})


def join_h5(path: Path, parts: Mapping[str, Path]) -> None:
    """Put files of one input each into one file with a group each, beside the groups that it has; whole or unchanged."""
    with replaced_atomically(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["schema"] = STORE_SCHEMA
        if path.exists():
            _copy_others(path, file, without=parts)
        for name, part in sorted(parts.items()):
            with h5py.File(part, "r") as source:
                target = file.create_group(name)
                target.attrs.update(source.attrs)
                for item in source:
                    source.copy(item, target)


def _copy_others(path: Path, file: Any, *, without: Collection[str]) -> None:
    names = [name for name in read_h5_headers(path) if name not in without]
    with h5py.File(path, "r") as source:
        for name in names:
            file.require_group(str(Path(name).parent))
            source.copy(name, file, name=name)
