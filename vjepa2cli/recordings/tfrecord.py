"""TFRecord files and the `tf.train.Example` messages in them, read without TensorFlow; every checksum is looked at.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecord format details"; tensorflow/core/example/feature.proto
and https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import RecordingError

Feature = list[bytes] | NDArray[Any]
"""Values of one name: byte strings, float32 or int64."""

_HEADER, _FOOTER = 12, 4
_MASK_DELTA = 0xA282EAD8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST = 1, 2


class _BadMessageError(Exception):
    pass


def record_offsets(path: Path) -> tuple[tuple[int, ...], bool]:
    """Where each record begins, and whether the file ends with a whole one; raises RecordingError for a damaged length."""
    status = path.stat()
    return _offsets(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _offsets(path: Path, size: int, _changed: int) -> tuple[tuple[int, ...], bool]:
    found: list[int] = []
    place = 0
    with path.open("rb") as file:
        while place + _HEADER <= size:
            file.seek(place)
            length = _length(file.read(_HEADER), path, place)
            after = place + _HEADER + length + _FOOTER
            if after > size:
                return tuple(found), False
            found.append(place)
            place = after
    return tuple(found), place == size


def read_record(path: Path, offset: int) -> bytes:
    """The content of the record at an offset; raises RecordingError where it is not what was written."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(_length(file.read(_HEADER), path, offset))
        (checksum,) = struct.unpack("<I", file.read(_FOOTER))
    if _masked(content) != checksum:
        raise RecordingError(f"{path}: the record at byte {offset} is damaged: its checksum differs; download the file again")
    return content


def parse_example(record: bytes, *, where: str) -> dict[str, Feature]:
    """The features of a `tf.train.Example` by name; raises RecordingError for what is none."""
    try:
        features = [feature for number, _, body in _fields(record) if number == 1 for feature in _fields(body)]
        return dict(_entry(entry) for number, _, entry in features if number == 1)
    except (_BadMessageError, IndexError, struct.error, UnicodeDecodeError, KeyError):
        raise RecordingError(f"{where}: is no tf.train.Example; RLDS sets as TensorFlow Datasets writes them are read") from None


def _length(header: bytes, path: Path, place: int) -> int:
    length, checksum = struct.unpack("<QI", header)
    if _masked(header[:8]) != checksum:
        raise RecordingError(f"{path}: no TFRecord at byte {place}: the checksum of its length differs; download the file again")
    return int(length)


def _masked(content: bytes) -> int:
    value = int(google_crc32c.value(content))
    return ((value >> 15 | value << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _entry(entry: Any) -> tuple[str, Feature]:
    """Name and values of a feature."""
    parts = {number: body for number, _, body in _fields(entry)}
    name = bytes(parts[1]).decode()
    for kind, _, values in _fields(parts.get(2, b"")):
        if kind == _BYTES_LIST:
            return name, [bytes(value) for _, _, value in _fields(values)]
        return name, _numbers(values, floats=kind == _FLOAT_LIST)
    return name, []


def _numbers(values: Any, *, floats: bool) -> NDArray[Any]:
    """Numbers are packed into one string, or stand one by one in older files."""
    if floats:
        parts = [bytes(body) for _, _, body in _fields(values)]
        return np.frombuffer(b"".join(parts), "<f4")
    found: list[int] = []
    for _, wire, body in _fields(values):
        if wire == _VARINT:
            found.append(body)
            continue
        place = 0
        while place < len(body):
            value, place = _varint(body, place)
            found.append(value)
    return np.array(found, np.uint64).astype(np.int64)


def _fields(message: Any) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, content) of a message's fields."""
    message = memoryview(message)
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            length, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _BadMessageError
        if place + length > len(message):
            raise _BadMessageError
        yield tag >> 3, wire, message[place : place + length]
        place += length


def _varint(message: Any, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        if shift > 63:
            raise _BadMessageError
