"""Writing one entry: frame by frame under a temporary name, then in its place."""

import os
import shutil
import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from vjepa2cli.artifacts.locks import lock, locked
from vjepa2cli.artifacts.video_store.entry import (
    VIDEOS,
    Description,
    group_attributes,
    mark_unfinished,
    plain,
    remove_group,
    write_group,
)
from vjepa2cli.artifacts.video_store.frames import ZSTD_LEVEL, Codec, FrameWriter, Pixels, joined_checksums
from vjepa2cli.artifacts.video_store.reading import entry_digest
from vjepa2cli.files import digest_bytes

# Frames too large for `shard_frames` of them get smaller shards, which are easier to copy.
_MAX_SHARD_BYTES = 256 << 20


class EntryWriter:
    """Writes one entry frame by frame."""

    def __init__(self, store: Path, key: str, *, codec: Codec, shard_frames: int) -> None:
        self._store, self._final = store, store / VIDEOS / key
        # Who writes it, for people; and a name of its own, since containers may share all of that.
        self._partial = store / VIDEOS / f"{key}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
        self._codec, self._shard_frames = codec, shard_frames
        self._frames: FrameWriter | None = None
        self._timestamps: list[float] = []
        self._indices: list[int] = []
        self._lock: int | None = None

    def __enter__(self) -> Self:
        # Again where it is taken for something left behind: as long as it is not held it looks like that.
        while self._lock is None:
            self._partial.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                self._lock = lock(self._partial)
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
            "seconds": round(float(times[-1] - times[0]) + 1 / description.fps, 3),
            "variable_rate": _varies(times, description.fps),
            "shard_frames": frames.shard_frames,
            "digest": digest,
            "pixels_digest": digest_bytes(checksums),
        }
        write_group(self._partial, plain(description) | shape | about)
        self._take_place(digest)

    def _take_place(self, digest: str) -> None:
        with locked(self._store):
            # Another process may have written the same entry; whoever comes second leaves it alone.
            before = group_attributes(self._final)
            if before is not None and before["digest"] == digest:
                return
            mark_unfinished(self._store)
            remove_group(self._final)
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


def _varies(times: NDArray[np.float64], fps: float) -> bool:
    """Whether a frame is shown half a period or more away from where a constant rate would put it."""
    return bool(np.abs(times - times[0] - np.arange(len(times)) / fps).max() * fps >= 0.5)
