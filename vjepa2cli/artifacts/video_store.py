"""The video store: decoded frames beside their index, timestamp and source, in sharded Zarr v3. The only door to zarr.

Layout: `videos/<key>/` holds one source: `frames` [F, Y, X, 3] in chunks of one frame, `timestamps`, `indices`, and for
robots `states` and `actions`. An entry is written under a temporary name and renamed; the root's attributes list the
entries and hold `complete`, set last of all.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from vjepa2cli.artifacts.video_entry import METADATA, SCHEMA, VideoEntry, Window, plain, root_attributes, write_group
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_json, read_json

__all__ = ["EntryWriter", "VideoEntry", "VideoStore", "VideoStoreWriter", "Window"]

Pixels = NDArray[np.uint8]

# A writer holds one shard in memory; frames too large for `shard_frames` of them get smaller shards.
_MAX_SHARD_BYTES = 256 << 20
_VIDEOS = "videos"


class VideoStore:
    """A finished store, read by slices; it may be pickled to the workers of a data loader."""

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: tuple[VideoEntry, ...] = tuple(VideoEntry.parse(item) for item in attributes["entries"])
        self.refused: list[dict[str, str]] = [dict(item) for item in attributes["refused"]]
        self.digest: str = attributes["digest"]
        self.provenance: dict[str, Any] = dict(attributes["provenance"])
        self._by_key = {entry.key: entry for entry in self.entries}
        self._arrays: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> "VideoStore":
        """Open a finished store; raises ArtifactError where it is absent, not a video store, or unfinished."""
        path = Path(path)
        attributes = root_attributes(path)
        if attributes is None:
            raise ArtifactError(f"{path}: no video store here; write it with 'vjepa2 ingest SOURCE --out {path}'")
        if not attributes.get("complete"):
            raise ArtifactError(
                f"{path}: its ingest did not finish; run the same 'vjepa2 ingest' again, it goes on where it stopped"
            )
        return cls(path, attributes)

    @property
    def labels(self) -> list[str]:
        """Class names of all windows, sorted."""
        return sorted({window.label for entry in self.entries for window in entry.windows})

    def frames(self, key: str, start: int, stop: int, step: int = 1) -> Pixels:
        """Frames `start:stop:step` of one video, uint8 [F, Y, X, 3]; raises ArtifactError where they are not all there."""
        entry = self._entry(key)
        if not 0 <= start < stop <= entry.num_frames or step < 1:
            raise ArtifactError(f"{self.path}: {key}: frames {start}:{stop}:{step} are not within 0:{entry.num_frames}")
        self._refuse_missing_shards(key, start, stop)
        # A slice, never a list of indices: zarr then reads a shard once, not once a frame.
        pixels: Pixels = self._read(key, "frames", slice(start, stop, step))
        return pixels

    def timestamps(self, key: str) -> NDArray[np.float64]:
        """Seconds of each frame from the video's first one, float64 [F]."""
        times: NDArray[np.float64] = self._read(key, "timestamps")
        return times

    def indices(self, key: str) -> NDArray[np.int64]:
        """Number of each frame in its source, int64 [F]."""
        numbers: NDArray[np.int64] = self._read(key, "indices")
        return numbers

    def states(self, key: str) -> NDArray[np.float32] | None:
        """Robot states at each frame, float32 [F, 7], or None: x, y, z in metres, Euler angles in radians, gripper."""
        return self._read(key, "states") if self._entry(key).has_states else None

    def actions(self, key: str) -> NDArray[np.float32] | None:
        """Commanded poses at each frame, float32 [F, 7], or None where the recording has none."""
        self._entry(key)
        return self._read(key, "actions") if (self.path / _VIDEOS / key / "actions").is_dir() else None

    def _entry(self, key: str) -> VideoEntry:
        if key not in self._by_key:
            raise ArtifactError(
                f"{self.path}: no video {key!r}; the store holds {len(self.entries)}, such as {self.entries[0].key!r}"
            )
        return self._by_key[key]

    def _refuse_missing_shards(self, key: str, start: int, stop: int) -> None:
        """Zarr reads a shard that is not there as black frames; a store that was copied in part must not."""
        folder = self.path / _VIDEOS / key / "frames"
        per_shard = self._array(key, "frames").shards[0]
        for shard in range(start // per_shard, (stop - 1) // per_shard + 1):
            if not (folder / "c" / str(shard) / "0" / "0" / "0").is_file():
                raise ArtifactError(f"{self.path}: {key}: shard {shard} of its frames is missing; copy the store again")

    def _array(self, key: str, name: str) -> Any:
        self._entry(key)
        where = f"{key}/{name}"
        if where not in self._arrays:
            with self._explained(where):
                self._arrays[where] = zarr.open_array(self.path / _VIDEOS / where, mode="r", zarr_format=3)
        return self._arrays[where]

    def _read(self, key: str, name: str, selection: slice = slice(None)) -> Any:
        array = self._array(key, name)
        with self._explained(f"{key}/{name}"):
            return array[selection]

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{self.path}: {where} cannot be read ({reason}); copy the store again, or delete it and ingest again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}


class VideoStoreWriter:
    """Creates a store or goes on with one; several processes may add different entries at once."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self._config = dict(config)

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any]) -> "VideoStoreWriter":
        """Create the store or take it up again; `config` is kept in it. Raises ArtifactError where something else is there."""
        path = Path(path)
        if root_attributes(path) is None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ArtifactError(f"{path}: holds something that is not a video store; give another --out or remove it")
            write_group(path, {"schema": SCHEMA, "kind": "video_store", "complete": False, "config": dict(config)})
            write_group(path / _VIDEOS, {})
        return cls(path, config)

    @staticmethod
    def read_config(path: str | Path) -> dict[str, Any] | None:
        """The config that a store was begun with, or None where there is none yet."""
        attributes = root_attributes(Path(path))
        return None if attributes is None else dict(attributes["config"])

    def find(self, key: str) -> dict[str, Any] | None:
        """The attributes of a finished entry, or None."""
        path = self.path / _VIDEOS / key / METADATA
        return dict(read_json(path)["attributes"]) if path.is_file() else None

    def finished(self) -> dict[str, dict[str, Any]]:
        """Attributes of every finished entry by key, sorted."""
        folder = self.path / _VIDEOS
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".partial"))
        return {name: found for name in names if (found := self.find(name)) is not None}

    def remove_unfinished(self) -> None:
        """Remove what writers that are no longer alive left behind."""
        for path in (self.path / _VIDEOS).glob("*.partial"):
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path)
                os.close(lock)

    def indices(self, key: str) -> NDArray[np.int64]:
        """Number of each frame of a finished entry in its source, int64 [F]."""
        numbers: NDArray[np.int64] = zarr.open_array(self.path / _VIDEOS / key / "indices", mode="r", zarr_format=3)[:]
        return numbers

    def entry(self, key: str) -> "EntryWriter":
        """A context in which one video is written; it appears in the store only by `EntryWriter.finish`."""
        self._reopen()
        return EntryWriter(self.path / _VIDEOS, key, codec=self._config["codec"], shard_frames=self._config["shard_frames"])

    def relabel(self, key: str, windows: Sequence[Window], *, episode: str) -> None:
        """Give a finished entry these labelled windows and this episode."""
        before = self.find(key)
        assert before is not None
        after = before | {"windows": plain(windows), "episode": episode}
        if after != before:
            self._reopen()
            write_group(self.path / _VIDEOS / key, after)

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        if self.find(key) is not None:
            self._reopen()
            shutil.rmtree(self.path / _VIDEOS / key)

    def _reopen(self) -> None:
        """Mark the store as unfinished, before anything in it changes."""
        attributes = root_attributes(self.path) or {}
        if attributes.get("complete"):
            write_group(self.path, attributes | {"complete": False})

    def finalise(
        self, splits: Mapping[str, str], *, refused: Sequence[Mapping[str, str]], provenance: Mapping[str, Any]
    ) -> VideoStore:
        """List all finished entries, their splits by key and what was refused; mark the store complete. Writes only changes."""
        # Again: a worker of a killed run may have taken a moment to die.
        self.remove_unfinished()
        entries = [attributes | {"key": key, "split": splits[key]} for key, attributes in self.finished().items()]
        for item in entries:
            # Where a source lay matters to the next ingest alone; the store itself may be moved.
            item.pop("origin", None)
        content = [[item["key"], item["digest"], item["split"], item["windows"]] for item in entries]
        attributes = {
            "schema": SCHEMA,
            "kind": "video_store",
            "complete": True,
            "config": self._config,
            "entries": entries,
            "refused": sorted((dict(item) for item in refused), key=lambda item: item["source"]),
            "digest": digest_json(content),
            "provenance": dict(provenance),
        }
        if root_attributes(self.path) != attributes:
            write_group(self.path, attributes)
        return VideoStore.open(self.path)


class EntryWriter:
    """Writes one video shard by shard, so that memory holds a shard and never the video."""

    def __init__(self, folder: Path, key: str, *, codec: str, shard_frames: int) -> None:
        self._final = folder / key
        self._partial = folder / f"{key}.{os.getpid()}.partial"
        self._codec = ZstdCodec(level=1) if codec == "zstd" else None
        self._shard_frames = shard_frames
        self._array: Any = None
        self._pending: list[Pixels] = []
        self._timestamps: list[float] = []
        self._indices: list[int] = []
        self._digest = hashlib.sha256()
        self._lock: int | None = None

    def __enter__(self) -> Self:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir()
        self._lock = _lock(self._partial)
        return self

    def __exit__(self, *_: object) -> None:
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

    def append(self, timestamp: float, index: int, pixels: Pixels) -> None:
        """Take one frame: its time in seconds, its number in the source, uint8 [Y, X, 3]."""
        self._timestamps.append(timestamp)
        self._indices.append(index)
        self._pending.append(pixels)
        self._digest.update(pixels.tobytes())
        if len(self._pending) == self._frames_per_shard(pixels):
            self._flush()

    def finish(
        self,
        attributes: Mapping[str, Any],
        *,
        windows: Sequence[Window] = (),
        rows: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Write what is left, `rows` such as states [F, 7], and the attributes; then the entry takes its place in the store."""
        self._flush()
        times = np.asarray(self._timestamps, np.float64)
        arrays = {"timestamps": times, "indices": np.asarray(self._indices, np.int64)} | dict(rows or {})
        for name, values in sorted(arrays.items()):
            assert len(values) == self.num_frames, name
            self._digest.update(name.encode() + values.tobytes())
            self._create(name, values.shape, values.dtype, chunks=values.shape)[:] = values
        _, height, width, _ = self._array.shape
        shape = {"num_frames": self.num_frames, "height": height, "width": width, "has_states": "states" in arrays}
        described = dict(attributes) | shape
        digest = digest_json([self._digest.hexdigest(), shape, described["source"], described["fps"]])
        write_group(self._partial, described | {"windows": plain(windows), "digest": digest})
        self._take_place(digest)

    def _take_place(self, digest: str) -> None:
        # A worker that outlived its killed parent may have written the same entry; whoever comes second leaves it alone.
        if (self._final / METADATA).is_file() and read_json(self._final / METADATA)["attributes"]["digest"] == digest:
            return
        shutil.rmtree(self._final, ignore_errors=True)
        self._partial.rename(self._final)

    def _flush(self) -> None:
        if not self._pending:
            return
        start = self.num_frames - len(self._pending)
        shape = (self.num_frames, *self._pending[0].shape)
        if self._array is None:
            # A video shorter than a shard gets a shard of its own length: no index of frames that never come.
            shard = min(self.num_frames, self._frames_per_shard(self._pending[0]))
            self._array = self._create("frames", shape, np.dtype(np.uint8), chunks=(1, *shape[1:]), shards=(shard, *shape[1:]))
        else:
            self._array.resize(shape)
        self._array[start:] = np.stack(self._pending)
        self._pending.clear()

    def _frames_per_shard(self, pixels: Pixels) -> int:
        return max(1, min(self._shard_frames, _MAX_SHARD_BYTES // pixels.nbytes))

    def _create(
        self, name: str, shape: tuple[int, ...], dtype: Any, *, chunks: tuple[int, ...], shards: tuple[int, ...] | None = None
    ) -> Any:
        return zarr.create_array(
            self._partial / name,
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            shards=shards,
            compressors=self._codec,
            fill_value=0,
            zarr_format=3,
            # Without this an all-black shard is no file, and cannot be told from one that was lost.
            config={"write_empty_chunks": True},
        )


def _lock(folder: Path) -> int | None:
    """Hold a folder until its descriptor is closed or the process dies; None where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
