"""What `encode` is given: videos, images, folders, globs, lists, video stores; each input opens as a stream of timed frames."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.artifacts.video_store.entry import METADATA
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, VIDEO_SUFFIXES, refuse_absent
from vjepa2cli.data.video import iterate_frames, probe_video, read_image
from vjepa2cli.errors import ArtifactError, InputError, VideoError
from vjepa2cli.files import digest_file
from vjepa2cli.recordings.folders import walk_folders

Pixels = NDArray[np.uint8]
TimedFrame = tuple[float, Pixels]

STDIN = "-"
_KNOWN_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
_STORE_FRAMES = 64


@dataclass(frozen=True)
class Source:
    """One input: the file at `path`, or the video `entry` of the store there; `name` is its path below what all inputs share."""

    name: str
    path: Path
    entry: VideoEntry | None = None

    @property
    def still(self) -> bool:
        """Whether it is an image."""
        return self.path.suffix.lower() in IMAGE_SUFFIXES if self.entry is None else self.entry.still

    def open(self, *, fps: float | None = None, notes: list[str] | None = None) -> Iterator[TimedFrame]:
        """Its frames with their seconds, every one or at `fps` the one shown at each instant; what it mended goes to `notes`."""
        if self.entry is not None:
            frames = _stored_frames(_store(self.path), self.entry)
            return frames if fps is None or self.still else _at_rate(frames, fps=fps, rate=self.entry.fps)
        if self.still:
            return iter([(0.0, read_image(self.path))])
        return ((time, pixels) for time, _, pixels in iterate_frames(self.path, fps=fps, notes=notes))

    def fps(self) -> float:
        """Frames a second by the header; 1 for an image."""
        if self.still:
            return 1.0
        return probe_video(self.path).fps if self.entry is None else self.entry.fps

    def digest(self) -> str:
        """SHA-256 of its content; raises VideoError where it cannot be read."""
        if self.entry is not None:
            return self.entry.digest
        refuse_absent(self.path)
        try:
            return digest_file(self.path)
        except PermissionError:
            raise VideoError(f"{self.path}: no permission to read it; change its mode or owner") from None


@dataclass(frozen=True)
class _Found:
    """An input and the folder that it was found through: the one it lies in, or the one that was given."""

    path: Path
    root: Path
    entry: VideoEntry | None = None

    @property
    def place(self) -> tuple[str, str | None]:
        """What tells it from every other input."""
        return _normal(self.path), None if self.entry is None else self.entry.key


def find_sources(given: Sequence[str | Path]) -> list[Source]:
    """Every input in the given files, folders, globs and stores, and in the list on stdin where `-` is given; each once.

    An input is named by its path below the deepest folder that all of them share, so that names are unique. Raises InputError
    where a path holds nothing; a line of the list that names no file is an input that will be refused.
    """
    found: dict[tuple[str, str | None], _Found] = {}
    for item in given:
        listed = _lines(sys.stdin.buffer) if str(item) == STDIN else [str(item)]
        for text in listed:
            for one in _find(text, required=str(item) != STDIN):
                found.setdefault(one.place, one)
    if not found:
        raise InputError("-: no path on stdin; write one a line, such as find . -name '*.mp4' | vjepa2 encode -")
    shared = os.path.commonpath([_normal(one.root) for one in found.values()])
    return [Source(_name(one, shared), one.path, one.entry) for one in found.values()]


def _lines(stream: Iterable[bytes]) -> list[str]:
    return [os.fsdecode(text) for line in stream if (text := line.strip(b"\r\n"))]


def _normal(path: Path) -> str:
    """An absolute path without `..`; links stay, since a file is called what its user calls it."""
    return os.path.normpath(path.absolute())


def _name(one: _Found, shared: str) -> str:
    path, key = one.place
    below = Path(os.path.relpath(path, shared)).as_posix()
    return below if key is None else key if below == "." else f"{below}/{key}"


def _find(text: str, *, required: bool) -> list[_Found]:
    path = Path(text)
    if path.is_dir():
        return _in_store(path) if path.suffix == ".zarr" else _in_folder(path)
    if path.exists():
        return [_Found(path, path.parent)]
    if glob.has_magic(text):
        return _matches(text)
    if required:
        raise InputError(f"{text}: no such file or folder; check the path")
    return [_Found(path, path.parent)]


def _in_folder(folder: Path) -> list[_Found]:
    files = [path for _, _, files in walk_folders(folder) for path in files if _is_known(path)]
    if not files:
        raise InputError(f"{folder}: no video or image in it; looked for {' '.join(sorted(_KNOWN_SUFFIXES))}")
    return [_Found(path, folder) for path in sorted(files)]


def _matches(pattern: str) -> list[_Found]:
    """What a quoted glob matches: the video stores if it ends in .zarr, else videos and images, as in a folder."""
    pattern = str(Path(pattern).expanduser())
    parts = Path(pattern).parts
    root = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - a last ** is to match files
    if pattern.endswith(".zarr"):
        found = [_Found(path, root, one.entry) for path in matches for one in _in_store(path)]
    else:
        found = [_Found(path, root) for path in matches if _is_known(path) and not _in_hierarchy(path.relative_to(root))]
    if not found:
        what = f"of {len(matches)} matches none is a video or an image" if matches else "matches nothing"
        raise InputError(f"{pattern}: {what}; check the pattern, and quote it so that the shell leaves it alone")
    return found


def _in_hierarchy(path: Path) -> bool:
    return any(parent.suffix == ".zarr" for parent in path.parents)


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in _KNOWN_SUFFIXES and path.is_file()


def _in_store(path: Path) -> list[_Found]:
    store = _store(path)
    if not store.entries:
        raise ArtifactError(f"{path}: holds no videos; ingest some")
    return [_Found(path, path, entry) for entry in store.entries]


def _store(path: Path) -> VideoStore:
    document = path / METADATA
    return _store_as_of(path, document.stat().st_mtime_ns if document.exists() else 0)


@lru_cache(maxsize=8)
def _store_as_of(path: Path, _: int) -> VideoStore:
    return VideoStore.open(path)


def _stored_frames(store: VideoStore, entry: VideoEntry) -> Iterator[TimedFrame]:
    times = store.timestamps(entry.key)
    for start in range(0, entry.num_frames, _STORE_FRAMES):
        stop = min(start + _STORE_FRAMES, entry.num_frames)
        yield from zip(times[start:stop].tolist(), store.frames(entry.key, start, stop), strict=True)


def _at_rate(frames: Iterator[TimedFrame], *, fps: float, rate: float) -> Iterator[TimedFrame]:
    """At each instant k / fps the frame that is shown then; `rate` is that of the frames and says how long the last one stays."""
    tolerance = 1e-3
    shown: TimedFrame | None = None
    step = 0
    for frame in frames:
        while shown is not None and step / fps < frame[0] - tolerance:
            yield shown
            step += 1
        shown = frame
    while shown is not None and step / fps < shown[0] + 1 / rate - tolerance:
        yield shown
        step += 1
