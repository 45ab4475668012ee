"""What `encode` is given: videos, images, folders and video stores, each opened as a stream of timed frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa2cli.data.video import iterate_frames, probe_video, read_image
from vjepa2cli.errors import ArtifactError, InputError

Pixels = NDArray[np.uint8]
TimedFrame = tuple[float, Pixels]

_STORE_FRAMES = 64


@dataclass(frozen=True)
class Source:
    """One input: `open` yields its frames, at their own rate `fps`, and notes what it mended; a `still` is an image."""

    name: str
    open: Callable[[], Iterator[TimedFrame]]
    fps: Callable[[], float]
    still: bool = False
    notes: list[str] = field(default_factory=list)


def find_sources(given: Sequence[Path]) -> list[Source]:
    """Every input in the given files, folders and stores; raises InputError where there is none or two have one name."""
    sources: list[Source] = []
    for path in given:
        if path.is_dir():
            sources += _of_store(path) if path.suffix == ".zarr" else _of_folder(path)
        elif path.exists():
            sources.append(_of_file(path, path.name))
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    names = [source.name for source in sources]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"{doubled}: two inputs have this name; encode them one at a time")
    return sources


def _of_folder(folder: Path) -> list[Source]:
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError(f"{folder}: no video or image in it; looked for {' '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}")
    return [_of_file(path, path.relative_to(folder).as_posix()) for path in files]


def _of_file(path: Path, name: str) -> Source:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Source(name, lambda: iter([(0.0, read_image(path))]), lambda: 1.0, still=True)
    notes: list[str] = []

    def read() -> Iterator[TimedFrame]:
        notes.clear()
        return ((time, pixels) for time, _, pixels in iterate_frames(path, notes=notes))

    return Source(name, read, lambda: probe_video(path).fps, notes=notes)


def _of_store(path: Path) -> list[Source]:
    store = VideoStore.open(path)
    if not store.entries:
        raise ArtifactError(f"{path}: holds no videos; ingest some")
    return [_of_entry(store, entry) for entry in store.entries]


def _of_entry(store: VideoStore, entry: VideoEntry) -> Source:
    def read() -> Iterator[TimedFrame]:
        times = store.timestamps(entry.key)
        for start in range(0, entry.num_frames, _STORE_FRAMES):
            stop = min(start + _STORE_FRAMES, entry.num_frames)
            yield from zip(times[start:stop].tolist(), store.frames(entry.key, start, stop), strict=True)

    return Source(entry.key, read, lambda: entry.fps)
