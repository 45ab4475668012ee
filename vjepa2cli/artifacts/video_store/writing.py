"""Writing a video store: entries appear whole or not at all, by many processes at once, and a killed run goes on."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from vjepa2cli.artifacts.video_store.entry import (
    METADATA,
    SCHEMA,
    SOURCES,
    VIDEOS,
    Description,
    plain,
    root_attributes,
    write_group,
)
from vjepa2cli.artifacts.video_store.frames import ZSTD_LEVEL, Codec, FrameWriter, Pixels, joined_checksums
from vjepa2cli.artifacts.video_store.reading import VideoStore, entry_digest, store_digest
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_bytes

# Frames too large for `shard_frames` of them get smaller shards, which are easier to copy.
_MAX_SHARD_BYTES = 256 << 20


class VideoStoreWriter:
    """Creates a store or goes on with one; several processes may add different entries at once."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self._config = dict(config)

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any]) -> "VideoStoreWriter":
        """Create the store or take it up again; `config` is kept in it.

        Raises ArtifactError where something else is there, StaleArtifactError for a store of another version.
        """
        path = Path(path)
        if root_attributes(path) is None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ArtifactError(f"{path}: holds something that is not a video store; give another --out or remove it")
            for folder in (VIDEOS, SOURCES):
                write_group(path / folder, {})
            write_group(path, {"schema": SCHEMA, "kind": "video_store", "complete": False, "config": dict(config)})
        return cls(path, config)

    @staticmethod
    def read_config(path: str | Path) -> dict[str, Any] | None:
        """The config that a store was begun with, or None where there is none yet."""
        attributes = root_attributes(Path(path))
        return None if attributes is None else dict(attributes["config"])

    def find(self, key: str) -> dict[str, Any] | None:
        """The attributes of a finished entry, or None."""
        return _attributes(self.path / VIDEOS / key)

    def finished(self) -> dict[str, dict[str, Any]]:
        """Attributes of every finished entry by key, sorted."""
        return _members(self.path / VIDEOS)

    def record(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep what became of a source."""
        if _attributes(self.path / SOURCES / key) != dict(record):
            self._reopen()
            write_group(self.path / SOURCES / key, record)

    def find_record(self, key: str) -> dict[str, Any] | None:
        """What became of a source, or None where it has not been dealt with."""
        return _attributes(self.path / SOURCES / key)

    def records(self) -> dict[str, dict[str, Any]]:
        """What became of every source, by key, sorted."""
        return _members(self.path / SOURCES)

    def remove_unfinished(self) -> None:
        """Remove what writers that are no longer alive left behind."""
        for path in (self.path / VIDEOS).glob("*.partial"):
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)

    def indices(self, key: str) -> NDArray[np.int64]:
        """Number of each frame of a finished entry in its source, int64 [F]."""
        return np.asarray(zarr.open_array(self.path / VIDEOS / key / "indices", mode="r", zarr_format=3)[:])

    def timestamps(self, key: str) -> NDArray[np.float64]:
        """Seconds of each frame of a finished entry in its source, float64 [F]."""
        return np.asarray(zarr.open_array(self.path / VIDEOS / key / "timestamps", mode="r", zarr_format=3)[:])

    def entry(self, key: str) -> "EntryWriter":
        """A context in which one entry is written; it appears in the store only by `EntryWriter.finish`."""
        self._reopen()
        return EntryWriter(self.path, key, codec=self._config["codec"], shard_frames=self._config["shard_frames"])

    def update(self, key: str, changes: Mapping[str, Any]) -> None:
        """Give a finished entry other attributes that are not of its content, such as labelled windows."""
        before = self.find(key)
        assert before is not None
        if (after := before | dict(changes)) != before:
            self._reopen()
            write_group(self.path / VIDEOS / key, after)

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        self._remove(self.path / VIDEOS / key)

    def remove_record(self, key: str) -> None:
        """Forget a source, if it is known."""
        self._remove(self.path / SOURCES / key)

    def _remove(self, folder: Path) -> None:
        if folder.is_dir():
            self._reopen()
            with _locked(self.path):
                shutil.rmtree(folder, ignore_errors=True)

    def _reopen(self) -> None:
        """Mark the store as unfinished, before anything in it changes."""
        with _locked(self.path):
            attributes = root_attributes(self.path) or {}
            if attributes.get("complete"):
                write_group(self.path, attributes | {"complete": False})

    def finalise(
        self,
        listed: Mapping[str, Mapping[str, Any]],
        *,
        refused: Sequence[Mapping[str, str]],
        provenance: Mapping[str, Any],
        state_space: Mapping[str, Any] | None = None,
    ) -> VideoStore:
        """List these entries, by key with what is decided among all of them (`split`, `weight`), and what was refused.

        The store is then complete. Writes only changes.
        """
        # Again: a worker of a killed run may have taken a moment to die.
        self.remove_unfinished()
        found = self.finished()
        entries = [found[key] | dict(decided) | {"key": key} for key, decided in sorted(listed.items()) if key in found]
        attributes = {
            "schema": SCHEMA,
            "kind": "video_store",
            "complete": True,
            "config": self._config,
            "entries": entries,
            "refused": sorted((dict(item) for item in refused), key=lambda item: item["source"]),
            "digest": store_digest(entries),
            "provenance": dict(provenance),
            "state_space": None if state_space is None else dict(state_space),
        }
        with _locked(self.path):
            if root_attributes(self.path) != attributes:
                write_group(self.path, attributes)
        return VideoStore.open(self.path)


class EntryWriter:
    """Writes one entry frame by frame."""

    def __init__(self, store: Path, key: str, *, codec: Codec, shard_frames: int) -> None:
        self._store, self._final = store, store / VIDEOS / key
        # Names of machines too: process numbers are equal on two nodes of a cluster.
        self._partial = store / VIDEOS / f"{key}.{socket.gethostname()}-{os.getpid()}.partial"
        self._codec, self._shard_frames = codec, shard_frames
        self._frames: FrameWriter | None = None
        self._timestamps: list[float] = []
        self._indices: list[int] = []
        self._lock: int | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir()
        self._lock = _lock(self._partial)
        return self

    def __exit__(self, *_: object) -> None:
        if self._frames is not None:
            self._frames.close()
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @property
    def num_frames(self) -> int:
        """Frames taken so far."""
        return len(self._timestamps)

    @property
    def indices(self) -> list[int]:
        """Number in the source of each frame taken so far."""
        return list(self._indices)

    @property
    def timestamps(self) -> list[float]:
        """Seconds of each frame taken so far."""
        return list(self._timestamps)

    def append(self, timestamp: float, index: int, pixels: Pixels) -> None:
        """Take one frame: its time in seconds, its number in the source, uint8 [Y, X, 3]."""
        if self._frames is None:
            shard = max(1, min(self._shard_frames, _MAX_SHARD_BYTES // pixels.nbytes))
            self._frames = FrameWriter(self._partial / "frames", codec=self._codec, shard_frames=shard)
        self._frames.append(np.ascontiguousarray(pixels))
        self._timestamps.append(timestamp)
        self._indices.append(index)

    def finish(self, description: Description, *, rows: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write `rows` such as states [F, 7], and what is known; then the entry takes its place in the store."""
        frames = self._frames
        assert frames is not None
        assert frames.shape is not None
        frames.finish()
        height, width, channels = frames.shape
        self._describe_frames((self.num_frames, height, width, channels), frames.shard_frames)
        times = np.asarray(self._timestamps, np.float64)
        arrays = {"timestamps": times, "indices": np.asarray(self._indices, np.int64)} | dict(rows or {})
        for name, values in sorted(arrays.items()):
            assert len(values) == self.num_frames, name
            self._write_array(name, values)
        shape = {"num_frames": self.num_frames, "height": height, "width": width, "has_states": "states" in arrays}
        checksums = joined_checksums(frames.checksums)
        digest = entry_digest(checksums, arrays, shape, [description.source, description.source_digest, description.fps])
        about = {
            "variable_rate": _varies(times, description.fps),
            "shard_frames": frames.shard_frames,
            "digest": digest,
            "pixels_digest": digest_bytes(checksums),
        }
        write_group(self._partial, plain(description) | shape | about)
        self._take_place(digest)

    def _take_place(self, digest: str) -> None:
        with _locked(self._store):
            # Another process may have written the same entry; whoever comes second leaves it alone.
            before = _attributes(self._final)
            if before is not None and before["digest"] == digest:
                return
            shutil.rmtree(self._final, ignore_errors=True)
            self._partial.rename(self._final)

    def _describe_frames(self, shape: tuple[int, ...], shard_frames: int) -> None:
        zarr.create_array(
            self._partial / "frames",
            shape=shape,
            dtype=np.uint8,
            chunks=(1, *shape[1:]),
            shards=(shard_frames, *shape[1:]),
            compressors=[*([ZstdCodec(level=ZSTD_LEVEL)] if self._codec == "zstd" else []), Crc32cCodec()],
            fill_value=0,
            zarr_format=3,
        )

    def _write_array(self, name: str, values: NDArray[Any]) -> None:
        array = zarr.create_array(
            self._partial / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
            fill_value=0,
            zarr_format=3,
            # Without this an array of zeros is no file, and cannot be told from one that was lost.
            config={"write_empty_chunks": True},
        )
        array[:] = values


def _attributes(folder: Path) -> dict[str, Any] | None:
    try:
        tree = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(tree["attributes"])


def _members(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".partial"))
    return {name: found for name in names if (found := _attributes(folder / name)) is not None}


def _varies(times: NDArray[np.float64], fps: float) -> bool:
    """Whether a frame is shown half a period or more away from where a constant rate would put it."""
    return bool(np.abs(times - times[0] - np.arange(len(times)) / fps).max() * fps >= 0.5)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a moment's work; where the file system has no locks, nobody is kept out."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Hold a folder until its descriptor is closed or the process dies; None where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
