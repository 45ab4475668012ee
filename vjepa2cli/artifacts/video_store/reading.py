"""A finished video store, read by slices and by frame numbers."""

import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store.entry import CHECKS, VIDEOS, VideoEntry, group_attributes, plain, root_attributes
from vjepa2cli.artifacts.video_store.frames import DamagedFramesError, FrameReader, Pixels, checksum, joined_checksums
from vjepa2cli.errors import ArtifactError, StaleArtifactError
from vjepa2cli.files import digest_json

# Frames that are read at once where all are read.
_BLOCK = 32


class VideoStore:
    """A finished store; it may be pickled to the workers of a data loader.

    `state_space` says what the numbers of its robot's states are, None those of an end effector.
    """

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: tuple[VideoEntry, ...] = tuple(VideoEntry.parse(item) for item in attributes["entries"])
        self.refused: list[dict[str, str]] = [dict(item) for item in attributes["refused"]]
        self.digest: str = attributes["digest"]
        self.provenance: dict[str, Any] = dict(attributes["provenance"])
        self.state_space: dict[str, Any] | None = attributes.get("state_space")
        self._by_key = {entry.key: entry for entry in self.entries}
        self._frames = FrameReader(codec=attributes["config"]["codec"])

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a finished store; raises ArtifactError where it is absent, not a video store, or unfinished."""
        path = Path(path)
        try:
            attributes = root_attributes(path)
        except StaleArtifactError as error:
            # Whoever reads must not be told that its own output is stale.
            raise ArtifactError(str(error)) from None
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

    @property
    def robot_checks(self) -> dict[str, Any] | None:
        """What was found of its robot recordings as they are now, or None where nobody has looked."""
        known = group_attributes(self.path / CHECKS) or {}
        return known["robot"] if known.get("of") == self.digest else None

    def frames(self, key: str, start: int, stop: int, step: int = 1) -> Pixels:
        """Frames `start:stop:step` of one video, uint8 [F, Y, X, 3]; raises ArtifactError where they are not all there."""
        entry = self._entry(key)
        if not 0 <= start < stop <= entry.num_frames or step < 1:
            raise ArtifactError(f"{self.path}: {key}: frames {start}:{stop}:{step} are not within 0:{entry.num_frames}")
        return self.frames_at(key, range(start, stop, step))

    def frames_at(self, key: str, indices: Sequence[int] | NDArray[np.int64]) -> Pixels:
        """Frames by number, in that order and as often, uint8 [len(indices), Y, X, 3]; reads no other frame."""
        entry = self._entry(key)
        numbers = [int(index) for index in indices]
        if not numbers or min(numbers) < 0 or max(numbers) >= entry.num_frames:
            raise ArtifactError(f"{self.path}: {key}: frames {numbers} are not within 0:{entry.num_frames}")
        size = (entry.height, entry.width, 3)
        with self._explained(f"{key}/frames"):
            folder = f"{self.path}/{VIDEOS}/{key}/frames"  # a Path takes a twentieth of the time of a clip
            return self._frames.read(folder, numbers, frame=size, shard_frames=entry.shard_frames)

    def timestamps(self, key: str) -> NDArray[np.float64]:
        """Seconds of each frame from the first one of its source, float64 [F]."""
        times: NDArray[np.float64] = self._read(key, "timestamps")
        return times

    def indices(self, key: str) -> NDArray[np.int64]:
        """Number of each frame in its source, int64 [F]."""
        numbers: NDArray[np.int64] = self._read(key, "indices")
        return numbers

    def states(self, key: str) -> NDArray[np.float32] | None:
        """Robot states at each frame, float32 [F, S], or None; `state_space` names their numbers."""
        return self._read(key, "states") if self._entry(key).has_states else None

    def actions(self, key: str) -> NDArray[np.float32] | None:
        """Commands at each frame as they were recorded, float32 [F, A], or None where the recording has none."""
        self._entry(key)
        return self._read(key, "actions") if (self.path / VIDEOS / key / "actions").is_dir() else None

    def extrinsics(self, key: str) -> NDArray[np.float32] | None:
        """The camera's pose at each frame, float32 [F, 6], or None where it is not known."""
        self._entry(key)
        return self._read(key, "extrinsics") if (self.path / VIDEOS / key / "extrinsics").is_dir() else None

    @property
    def index_is_whole(self) -> bool:
        """Whether the list of entries is what the store's digest was taken of."""
        named = ("key", "digest", "split", "weight")
        entries = [
            {name: getattr(entry, name) for name in named} | {"windows": [plain(window) for window in entry.windows]}
            for entry in self.entries
        ]
        return self.digest == store_digest(entries)

    def damage(self, key: str, beat: Callable[[], None] = lambda: None) -> str | None:
        """What is wrong with an entry, told from reading all of it and taking its digest again, or None where it is whole.

        `beat` is called now and then.
        """
        entry = self._entry(key)
        try:
            checksums: list[int] = []
            for start in range(0, entry.num_frames, _BLOCK):
                block = range(start, min(start + _BLOCK, entry.num_frames))
                checksums += [checksum(frame) for frame in self.frames_at(key, block)]
                beat()
            rows = {"timestamps": self.timestamps(key), "indices": self.indices(key)}
            rows |= {
                name: values for name in ("states", "actions", "extrinsics") if (values := getattr(self, name)(key)) is not None
            }
        except ArtifactError as error:
            return str(error).removeprefix(f"{self.path}: ").partition("; ")[0]
        shape = {"num_frames": entry.num_frames, "height": entry.height, "width": entry.width, "has_states": entry.has_states}
        named: list[str | float] = [entry.source, entry.source_digest, entry.fps]
        if entry_digest(joined_checksums(checksums), rows, shape, named) != entry.digest:
            return "its content is not what was written: the digest differs"
        return None

    def _entry(self, key: str) -> VideoEntry:
        if key not in self._by_key:
            raise ArtifactError(
                f"{self.path}: no video {key!r}; the store holds {len(self.entries)}, such as {self.entries[0].key!r}"
            )
        return self._by_key[key]

    def _read(self, key: str, name: str) -> Any:
        self._entry(key)
        where = f"{key}/{name}"
        with self._explained(where):
            path = self.path / VIDEOS / where
            if not (path / "c").is_dir():
                # Zarr would read what is missing as zeros.
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path / "c"))
            return zarr.open_array(path, mode="r", zarr_format=3)[:]

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, DamagedFramesError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"{self.path}: {where} cannot be read ({reason}); copy the store again, or delete it and ingest again"
            ) from error


def entry_digest(
    checksums: bytes, rows: Mapping[str, NDArray[Any]], shape: Mapping[str, int | bool], named: Sequence[str | float]
) -> str:
    """SHA-256 of an entry's content: every frame's checksum, its other arrays, its shape, and what names it."""
    content = hashlib.sha256(checksums)
    for name, values in sorted(rows.items()):
        content.update(name.encode() + values.tobytes())
    return digest_json([content.hexdigest(), dict(shape), list(named)])


def store_digest(entries: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of what a store holds, from the attributes of its entries."""
    return digest_json([[item["key"], item["digest"], item["split"], item["windows"], item["weight"]] for item in entries])
