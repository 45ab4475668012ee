"""Feature files: what `encode` writes, as .npz, .safetensors, .h5 or .zarr; whole or absent, and longer than memory if need be.

Arrays grow along their first axis: rows are written as they come and never held. Beside them lies a header, JSON under the name
`provenance`, that says how they were made.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts import feature_stores
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import replaced_atomically

SUFFIXES = (".npz", ".safetensors", ".h5", ".zarr")
HEADER = feature_stores.HEADER
Array = NDArray[Any]

_SPOOL_BYTES = 4 << 20
_DTYPES = {"F64": "float64", "F32": "float32", "I64": "int64"}
_DTYPE_NAMES = {name: short for short, name in _DTYPES.items()}


class FeatureWriter(Protocol):
    """Writes one file; it appears by `commit` alone."""

    def append(self, name: str, rows: Array) -> None:
        """Add rows [n, ...] to the array of this name."""

    def commit(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        """Add whole arrays and the header, and put the file in its place."""

    def discard(self) -> None:
        """Leave nothing behind."""


def create(path: Path, *, suffix: str | None = None) -> FeatureWriter:
    """A writer for `path`, in the format of its suffix or of the one given."""
    match suffix or path.suffix:
        case ".npz":
            return _SpoolWriter(path, zipped=True)
        case ".safetensors":
            return _SpoolWriter(path, zipped=False)
        case ".h5":
            return feature_stores.H5Writer(path)
        case ".zarr":
            return feature_stores.ZarrWriter(path)
    raise AssertionError(path)


def read_header(path: Path, *, suffix: str | None = None) -> dict[str, Any] | None:
    """The header of a whole feature file, or None where there is none or it is not one."""
    if not path.exists():
        return None
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile, ArtifactError):
        match suffix or path.suffix:
            case ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return dict(json.loads(str(file[HEADER])))
            case ".safetensors":
                return dict(json.loads(_read_safetensors_header(path)["__metadata__"][HEADER]))
            case ".h5":
                return feature_stores.read_h5_headers(path)[""]
            case ".zarr":
                return feature_stores.read_zarr_header(path)
    return None


def read_blocks(path: Path, name: str, *, suffix: str | None = None) -> Iterator[Array]:
    """An array of a whole feature file, from its beginning, a few rows at a time."""
    match suffix or path.suffix:
        case ".npz":
            with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
                np.lib.format.read_magic(member)
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                yield from _read_rows(member, shape, dtype)
        case ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                about = json.loads(file.read(length))[name]
                file.seek(8 + length + about["data_offsets"][0])
                yield from _read_rows(file, tuple(about["shape"]), np.dtype(_DTYPES[about["dtype"]]))
        case ".h5":
            yield from feature_stores.read_h5_blocks(path, name)
        case ".zarr":
            yield from feature_stores.read_zarr_blocks(path, name)


def _read_rows(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Array]:
    step = feature_stores.rows_at_once(shape, dtype)
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        yield np.frombuffer(file.read(count * row_bytes), dtype).reshape(count, *shape[1:])


class _Spool:
    """The rows of one array in a nameless file beside the target, or in memory while they are few."""

    def __init__(self, folder: Path) -> None:
        # Closed by `close`: it lives as long as its writer.
        self.file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(folder))  # noqa: SIM115
        self.dtype: np.dtype[Any] | None = None
        self.shape: tuple[int, ...] = (0,)

    def append(self, rows: Array) -> None:
        assert self.dtype in (None, rows.dtype)
        self.dtype, self.shape = rows.dtype, (self.shape[0] + len(rows), *rows.shape[1:])
        self.file.write(np.ascontiguousarray(rows).data)


class _SpoolWriter:
    """.npz and .safetensors say how long an array is before its first row, so rows wait in a spool until the last has come."""

    def __init__(self, path: Path, *, zipped: bool) -> None:
        self._path = path
        self._zipped = zipped
        self._spools: dict[str, _Spool] = {}
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, rows: Array) -> None:
        if name not in self._spools:
            self._spools[name] = _Spool(self._path.parent)
        self._spools[name].append(rows)

    def commit(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        try:
            members: dict[str, tuple[Any, tuple[int, ...], IO[bytes]]] = {}
            for name, spool in self._spools.items():
                spool.file.seek(0)
                members[name] = (spool.dtype, spool.shape, spool.file)
            for name, array in arrays.items():
                members[name] = (array.dtype, array.shape, BytesIO(np.ascontiguousarray(array).tobytes()))
            text = json.dumps(dict(header), sort_keys=True)
            with replaced_atomically(self._path) as partial, partial.open("wb") as file:
                write = _write_npz if self._zipped else _write_safetensors
                write(file, members, text)
        finally:
            self.discard()

    def discard(self) -> None:
        for spool in self._spools.values():
            spool.file.close()
        self._spools.clear()


_Members = Mapping[str, tuple[Any, tuple[int, ...], IO[bytes]]]


def _write_npz(file: IO[bytes], members: _Members, header: str) -> None:
    """A zip of .npy members as `np.savez` writes it. Source: numpy.lib.format, version 1.0."""
    text = np.array(header)
    whole = dict(members) | {HEADER: (text.dtype, (), BytesIO(text.tobytes()))}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, (dtype, shape, rows) in whole.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, about)
                shutil.copyfileobj(rows, member)


def _write_safetensors(file: IO[bytes], members: _Members, header: str) -> None:
    """Eight bytes of length, a JSON header, the tensors, widest first. Source: huggingface/safetensors, README.md, format."""
    order = sorted(members, key=lambda name: (-members[name][0].itemsize, name))
    tree: dict[str, Any] = {"__metadata__": {HEADER: header}}
    end = 0
    for name in order:
        dtype, shape, _ = members[name]
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        tree[name] = {"dtype": _DTYPE_NAMES[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        shutil.copyfileobj(members[name][2], file)


def _read_safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("no safetensors header")
        tree = json.loads(file.read(length))
    return dict(tree)
