"""Frames in Zarr v3 shards, written as they come and read one by one: chunks of one frame, and at a shard's end their index.

The Zarr library writes the metadata and reads these files as well; its own way to a clip of sixteen frames takes many times
as long. Source: Zarr v3 sharding codec (ZEP 2) and crc32c codec.
"""

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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
_OPEN_SHARDS = 64


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


class _Shard:
    """An open shard and its index.

    A frame is read through the file and compared with its checksum, and after that, if it is not compressed, copied from a map
    of the file. So a disk that fails is an exception, which from the map alone it would not be, but a signal that ends a process.
    """

    def __init__(self, path: Path, shard_frames: int) -> None:
        self.path = path
        self._file: int | None = None
        self._compared: set[int] = set()
        self._map: Pixels | None = None
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise DamagedFramesError(f"{path} is missing") from None
        size = 16 * shard_frames + _CRC_BYTES
        total = os.fstat(self._file).st_size
        packed = os.pread(self._file, size, max(0, total - size))
        if len(packed) < size or checksum(packed[:-_CRC_BYTES]) != int.from_bytes(packed[-_CRC_BYTES:], "little"):
            self.close()
            raise DamagedFramesError(f"the index of {path} is damaged or cut short")
        self.index = np.frombuffer(packed[:-_CRC_BYTES], "<u8").reshape(shard_frames, 2).tolist()

    def read(self, position: int, out: Pixels, codec: Codec) -> None:
        """Read one frame into `out`, contiguous."""
        offset, size = self.index[position]
        if position in self._compared:
            out.reshape(-1)[:] = self._mapped()[offset : offset + out.nbytes]
            return
        if codec == "none" and size == out.nbytes + _CRC_BYTES and self._read_into(out, offset):
            self._compared.add(position)
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

    def _mapped(self) -> Pixels:
        """The whole file as bytes; it stays mapped until the shard is let go of."""
        if self._map is None:
            assert self._file is not None
            self._map = np.frombuffer(mmap.mmap(self._file, 0, prot=mmap.PROT_READ), np.uint8)
        return self._map

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
    """Reads frames by number and keeps the shards it used last open; it may be pickled, forked, and used by several threads."""

    def __init__(self, *, codec: Codec) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._shards: OrderedDict[tuple[Path, int], _Shard] = OrderedDict()

    def read(self, folder: Path, indices: Sequence[int], *, frame: tuple[int, int, int], shard_frames: int) -> Pixels:
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

    def _shard(self, folder: Path, number: int, shard_frames: int) -> _Shard:
        where = (folder, number)
        with self._lock:
            if where not in self._shards:
                self._shards[where] = _Shard(shard_path(folder, number), shard_frames)
                if len(self._shards) > _OPEN_SHARDS:
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
