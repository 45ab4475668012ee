"""Writing a video store: entries appear whole or not at all, by many processes at once, and a killed run goes on."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from vjepa2cli.artifacts.locks import has_locks, lock, locked
from vjepa2cli.artifacts.video_store.entry import (
    CHECKS,
    METADATA,
    SCHEMA,
    SOURCES,
    VIDEOS,
    group_attributes,
    mark_unfinished,
    remove_group,
    root_attributes,
    write_group,
)
from vjepa2cli.artifacts.video_store.entry_writing import EntryWriter
from vjepa2cli.artifacts.video_store.reading import VideoStore, store_digest
from vjepa2cli.errors import ArtifactError

# What the next ingest needs to know of an entry, and no reader of the store.
_KEPT_WITH_ENTRY = ("signature", "pixels_digest", "share", "black", "frozen")

_CLAIM = ".claim.partial"


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
            if path.exists() and (not path.is_dir() or any(_is_foreign(item) for item in path.iterdir())):
                raise ArtifactError(f"{path}: holds something that is not a video store; give another --out or remove it")
            path.mkdir(parents=True, exist_ok=True)
            with locked(path):
                # Another process may have been faster.
                if root_attributes(path) is None:
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
        return group_attributes(self.path / VIDEOS / key)

    def finished(self) -> dict[str, dict[str, Any]]:
        """Attributes of every finished entry by key, sorted."""
        return _members(self.path / VIDEOS)

    def recorded(self) -> dict[str, dict[str, Any]]:
        """Attributes of every finished entry that the record of a source names, by key, sorted."""
        named = self._named()
        return {key: attributes for key, attributes in self.finished().items() if key in named}

    def remove_unrecorded(self) -> None:
        """Remove finished entries that no record names: what writers left behind that died before they wrote it.

        A writer that is alive holds the claim to its source until its record is there, so nothing is removed beside one.
        """
        if not (unknown := set(_names(self.path / VIDEOS)) - self._named()):
            return
        with self._changing():
            # The claims first: a record is written before its claim ends, and no entry takes its place while this lasts.
            if not self._is_claimed():
                for key in unknown - self._named():
                    remove_group(self.path / VIDEOS / key)

    def record(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep what became of a source."""
        if group_attributes(self.path / SOURCES / key) != dict(record):
            with self._changing():
                write_group(self.path / SOURCES / key, record)

    def find_record(self, key: str) -> dict[str, Any] | None:
        """What became of a source, or None where it has not been dealt with."""
        return group_attributes(self.path / SOURCES / key)

    def records(self) -> dict[str, dict[str, Any]]:
        """What became of every source, by key, sorted."""
        return _members(self.path / SOURCES)

    def remove_unfinished(self) -> None:
        """Remove what writers that are no longer alive left behind."""
        for path in [*(self.path / VIDEOS).glob("*.partial"), *(self.path / SOURCES).glob("*.partial")]:
            with suppress(FileNotFoundError):
                if (held := lock(path)) is not None:
                    if has_locks(held):
                        if path.name.endswith(_CLAIM):
                            _remove_half_written(path.with_name(path.name.removesuffix(_CLAIM)))
                        shutil.rmtree(path, ignore_errors=True)
                    os.close(held)

    def is_being_written(self) -> bool:
        """Whether any process is at work in the store."""
        return any(path for folder in (VIDEOS, SOURCES) for path in (self.path / folder).glob("*.partial"))

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether a source is ours while the context lasts; False where another process is at it."""
        folder = self.path / SOURCES / f"{key}{_CLAIM}"
        folder.mkdir(exist_ok=True)
        try:
            held = lock(folder)
        except FileNotFoundError:
            # Whoever had it has just let go of it.
            yield False
            return
        if held is None:
            yield False
            return
        if has_locks(held):
            _remove_half_written(self.path / SOURCES / key)
        try:
            yield True
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def discard_frames(self, key: str) -> None:
        """Free what the frames of an entry take, and keep what is known of it."""
        self.update(key, {"discarded": True})
        shutil.rmtree(self.path / VIDEOS / key / "frames", ignore_errors=True)

    def indices(self, key: str) -> NDArray[np.int64]:
        """Number of each frame of a finished entry in its source, int64 [F]."""
        return np.asarray(zarr.open_array(self.path / VIDEOS / key / "indices", mode="r", zarr_format=3)[:])

    def timestamps(self, key: str) -> NDArray[np.float64]:
        """Seconds of each frame of a finished entry in its source, float64 [F]."""
        return np.asarray(zarr.open_array(self.path / VIDEOS / key / "timestamps", mode="r", zarr_format=3)[:])

    def entry(self, key: str) -> "EntryWriter":
        """A context in which one entry is written; it appears in the store only by `EntryWriter.finish`."""
        return EntryWriter(self.path, key, codec=self._config["codec"], shard_frames=self._config["shard_frames"])

    def update(self, key: str, changes: Mapping[str, Any]) -> None:
        """Give a finished entry other attributes that are not of its content, such as labelled windows."""
        before = self.find(key)
        assert before is not None
        if (after := before | dict(changes)) != before:
            with self._changing():
                write_group(self.path / VIDEOS / key, after)

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        self._remove(self.path / VIDEOS / key)

    def remove_record(self, key: str) -> None:
        """Forget a source, if it is known."""
        self._remove(self.path / SOURCES / key)

    def keep_checks(self, checks: Mapping[str, Any], *, of: str) -> None:
        """Keep what was found of the robot recordings of the finished store with the digest `of`."""
        known = {"of": of, "robot": dict(checks)}
        if group_attributes(self.path / CHECKS) != known:
            write_group(self.path / CHECKS, known)

    def _remove(self, folder: Path) -> None:
        if folder.is_dir():
            with self._changing():
                remove_group(folder)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep other writers out while something in the store changes, which is marked as unfinished before."""
        with locked(self.path):
            mark_unfinished(self.path)
            yield

    def _named(self) -> set[str]:
        return {key for record in self.records().values() for key in record.get("entries", ())}

    def _is_claimed(self) -> bool:
        """Whether a process that is alive is at a source; where there are no locks, any claim counts as such."""
        for path in (self.path / SOURCES).glob(f"*{_CLAIM}"):
            with suppress(FileNotFoundError):
                if (held := lock(path)) is None:
                    return True
                is_dead = has_locks(held)
                os.close(held)
                if not is_dead:
                    return True
        return False

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
        for item in entries:
            for name in _KEPT_WITH_ENTRY:
                item.pop(name, None)
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
        with locked(self.path):
            if root_attributes(self.path) != attributes:
                write_group(self.path, attributes)
        # Not read again: another process may by now be at its next entry, for which the store is unfinished.
        return VideoStore(self.path, attributes)


def _is_foreign(path: Path) -> bool:
    """Whether no writer of a store that was killed at its beginning left this."""
    return path.name not in (VIDEOS, SOURCES) and not path.name.startswith(METADATA)


def _remove_half_written(record: Path) -> None:
    """Remove what there is of a record that its writer did not live to put in place; the source may never come back."""
    for path in record.glob(f"{METADATA}.*.partial"):
        path.unlink(missing_ok=True)
    if record.is_dir() and not any(record.iterdir()):
        record.rmdir()


def _members(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: found for name in _names(folder) if (found := group_attributes(folder / name)) is not None}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".partial"))
