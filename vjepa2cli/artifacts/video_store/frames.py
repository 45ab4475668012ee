"""Frames in Zarr v3 shards, written as they come and read one by one: chunks of one frame, and at a shard's end their index.

The Zarr library writes the metadata and reads these files as well; its own way to a clip of sixteen frames takes many times
as long. Source: Zarr v3 sharding codec (ZEP 2) and crc32c codec.
"""

import mmap
import os
import resource
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Codec = Literal["none", "zstd"]

ZSTD_LEVEL = 1
_CRC_BYTES = 4
_NO_CHUNK = np.uint64(2**64 - 1)
# Shards that a reader keeps open, each with up to two file descriptors, if the process may have eight times as many.
_OPEN_SHARDS = 4096


class DamagedFramesError(Exception):
    """A shard cannot be read, or a frame does not have the checksum that it was written with; the message says which."""


def checksum(content: bytes | NDArray[np.uint8]) -> int:
    """CRC-32C of bytes, or of a contiguous array of them."""
    return int(google_crc32c.value(content))


class FrameWriter:
    """Writes frames of one size into numbered shards below `folder`, holding none of them in memory."""

    def __init__(self, folder: Path, *, codec: Codec, shard_frames: int) -> None:
        """Shards hold `shard_frames` frames; a video that ends in its first one makes it the length of a shard."""
        self._folder, self._codec = folder, codec
        self.shard_frames = shard_frames
        self.checksums: list[int] = []
        self.shape: tuple[int, ...] | None = None
        self._index: list[tuple[int, int]] = []
        self._file: int | None = None
        self._position = 0

    def append(self, pixels: Pixels) -> None:
        """Write one frame, uint8 [Y, X, 3], contiguous."""
        assert self.shape in (None, pixels.shape), f"{pixels.shape} after {self.shape}"
        self.shape = pixels.shape
        if self._file is None:
            path = shard_path(self._folder, len(self.checksums) // self.shard_frames)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        crc = checksum(pixels)
        self.checksums.append(crc)
        if self._codec == "none":
            size = self._write(pixels.data.cast("B"))
        else:
            packed = Zstd(level=ZSTD_LEVEL).encode(pixels)
            crc, size = checksum(packed), self._write(memoryview(packed))
        self._index.append((self._position, size + self._write(memoryview(crc.to_bytes(_CRC_BYTES, "little")))))
        self._position += self._index[-1][1]
        if len(self._index) == self.shard_frames:
            self._end_shard()

    def finish(self) -> None:
        """End the last shard."""
        if len(self.checksums) < self.shard_frames:
            self.shard_frames = len(self.checksums)
        if self._index:
            self._end_shard()

    def close(self) -> None:
        """Let go of a shard that was not finished."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _end_shard(self) -> None:
        index = np.full((self.shard_frames, 2), _NO_CHUNK, "<u8")
        index[: len(self._index)] = self._index
        packed = index.tobytes()
        self._write(memoryview(packed + checksum(packed).to_bytes(_CRC_BYTES, "little")))
        self.close()
        self._index, self._position = [], 0

    def _write(self, content: memoryview) -> int:
        assert self._file is not None
        written = 0
        while written < len(content):
            written += os.write(self._file, content[written:])
        return written


def shard_path(folder: Path, shard: int) -> Path:
    """The file of one shard of an array of frames."""
    return folder / "c" / str(shard) / "0" / "0" / "0"


@dataclass
class _Compared:
    """Which frames of a file were compared with their checksums, a bit each, while it was the same file.

    Threads may lose each other's bits; such a frame is compared once more.
    """

    file: tuple[int, ...]
    frames: int = 0


class _Shard:
    """An open shard and its index.

    A frame is read through the file and compared with its checksum, and after that, if it is not compressed, copied from a map
    of the file. So a disk that fails is an exception, which from the map alone it would not be, but a signal that ends a process.
    """

    def __init__(self, path: Path, shard_frames: int, *, mapped: bool) -> None:
        """Not `mapped`, frames are always read: a map costs more than it saves unless frames are copied from it again."""
        self.path = path
        self.compared = _Compared(())
        self._file: int | None = None
        self._map: Pixels | None = None
        self._is_mapped = mapped
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DamagedFramesError(f"{path} is missing") from None
        size = 16 * shard_frames + _CRC_BYTES
        status = os.fstat(self._file)
        self.compared.file = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        total = status.st_size
        packed = os.pread(self._file, size, max(0, total - size))
        if len(packed) < size or checksum(packed[:-_CRC_BYTES]) != int.from_bytes(packed[-_CRC_BYTES:], "little"):
            self.close()
            raise DamagedFramesError(f"the index of {path} is damaged or cut short")
        # Of all that are open, as lists of numbers, it would take five times the room.
        self._index = array("Q", np.frombuffer(packed[:-_CRC_BYTES], "<u8").astype(np.uint64).tobytes())

    def read(self, position: int, out: Pixels, codec: Codec) -> None:
        """Read one frame into `out`, contiguous."""
        offset, size = self._index[2 * position : 2 * position + 2]
        if codec == "none" and size == out.nbytes + _CRC_BYTES:
            if self.compared.frames >> position & 1:
                if self._copy_into(out, offset):
                    return
            elif self._read_into(out, offset):
                self.compared.frames |= 1 << position
                return
        chunk = self._bytes(offset, size)
        content = chunk[:-_CRC_BYTES]
        if not content or checksum(content) != int.from_bytes(chunk[-_CRC_BYTES:], "little"):
            raise DamagedFramesError(f"frame {position} of {self.path} does not have the checksum that it was written with")
        if codec == "zstd":
            Zstd().decode(content, out)
        else:
            out[...] = np.frombuffer(content, np.uint8).reshape(out.shape)

    def _read_into(self, out: Pixels, offset: int) -> bool:
        """Read without a copy; False where less came back than was asked for, or the checksum is wrong."""
        assert self._file is not None
        crc = bytearray(_CRC_BYTES)
        count = os.preadv(self._file, [out.data.cast("B"), crc], offset)
        return count == out.nbytes + _CRC_BYTES and checksum(out) == int.from_bytes(crc, "little")

    def _copy_into(self, out: Pixels, offset: int) -> bool:
        """Copy what was compared before; False where it is not there any more. A map stays until the shard is let go of."""
        assert self._file is not None
        if not self._is_mapped:
            return os.preadv(self._file, [out.data.cast("B")], offset) == out.nbytes
        if self._map is None:
            self._map = np.frombuffer(mmap.mmap(self._file, 0, prot=mmap.PROT_READ), np.uint8)
        out.reshape(-1)[:] = self._map[offset : offset + out.nbytes]
        return True

    def _bytes(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer where it ends before, as where the index is wrong."""
        assert self._file is not None
        parts: list[bytes] = []
        while size > 0 and offset + size < 2**63 and (part := os.pread(self._file, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


class FrameReader:
    """Reads frames by number and keeps the shards it used last open; it may be pickled, forked, and used by several threads.

    Which frames it has compared it remembers of all shards, until their files change.
    """

    def __init__(self, *, codec: Codec) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._shards: OrderedDict[tuple[str, int], _Shard] = OrderedDict()
        self._compared: dict[str, _Compared] = {}
        self._most_open = max(1, min(_OPEN_SHARDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))

    def read(self, folder: str, indices: Sequence[int], *, frame: tuple[int, int, int], shard_frames: int) -> Pixels:
        """Frames by number, uint8 [len(indices), *frame]; raises DamagedFramesError."""
        out = np.empty((len(indices), *frame), np.uint8)
        shard, last = None, -1
        for place, index in enumerate(indices):
            if place and index == indices[place - 1]:
                out[place] = out[place - 1]
                continue
            number, position = divmod(index, shard_frames)
            if shard is None or number != last:
                shard, last = self._shard(folder, number, shard_frames), number
            shard.read(position, out[place], self._codec)
        return out

    def _shard(self, folder: str, number: int, shard_frames: int) -> _Shard:
        where = (folder, number)
        with self._lock:
            if where not in self._shards:
                # Once there are too many to keep open, few are read again before they are let go of.
                is_crowded = len(self._shards) >= self._most_open
                shard = self._shards[where] = _Shard(shard_path(Path(folder), number), shard_frames, mapped=not is_crowded)
                known = self._compared.setdefault(str(shard.path), shard.compared)
                if known.file == shard.compared.file:
                    shard.compared = known
                else:
                    self._compared[str(shard.path)] = shard.compared
                if is_crowded:
                    self._shards.popitem(last=False)  # closed once no thread reads it any more
            self._shards.move_to_end(where)
            return self._shards[where]

    def __getstate__(self) -> dict[str, Any]:
        return {"_codec": self._codec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(codec=state["_codec"])  # type: ignore[misc]


def joined_checksums(checksums: Iterable[int]) -> bytes:
    """The frames' checksums in order, as bytes to take a digest of."""
    return np.fromiter(checksums, "<u4").tobytes()
