"""From what a user names to what can be ingested: video files and cameras of episodes, each once, under names that can move."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.droid import MOVIES, is_episode
from vjepa2cli.recordings.episode import Camera
from vjepa2cli.recordings.folders import walk_folders
from vjepa2cli.recordings.labels import LabelledVideo, LabelledWindow, read_labels


@dataclass(frozen=True)
class Source:
    """One video file, or one camera of an episode folder.

    `name` is relative to what the user named, `root`; `episode` groups what must share a split. `windows` holds the labelled
    windows by name of the video file, or is None where no table of labels was given.
    """

    name: str
    path: Path
    root: str
    episode: str = ""
    camera: Camera | None = None
    windows: Mapping[str, tuple[LabelledWindow, ...]] | None = None

    @property
    def key(self) -> str:
        """Readable, safe as a file name, and different for different names."""
        digest = hashlib.sha256(self.name.encode(errors="surrogateescape")).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', self.name).strip('-')[-60:]}-{digest}"


def find_sources(
    given: Sequence[Path], *, cameras: Sequence[Camera], suffixes: Collection[str], labels: Path | None = None
) -> list[Source]:
    """List the sources in files, folders (searched to the bottom for `suffixes`), episodes and .csv tables, sorted by name.

    `labels` and the tables among `given` label whatever sources they mention; a video that only a table mentions is a source too
    where the table is in `given`. Raises InputError where nothing is found, or where no labelled video is among the sources.
    """
    tables = [path for path in given if path.suffix.lower() == ".csv"]
    listed = {table: read_labels(table) for table in [*tables, *([labels] if labels else [])]}
    labelled = {video.path.resolve(): video for videos in listed.values() for video in videos}
    found: dict[tuple[Path, Camera | None], Source] = {}
    for root in given:
        if not root.exists():
            raise InputError(f"{root}: no such file or folder; give videos, folders, recordings or a .csv of labelled videos")
        for path, camera in _walk(root, cameras, suffixes) if root not in tables else ():
            name = path.relative_to(root).as_posix() if path != root else path.absolute().name
            found.setdefault((path.resolve(), camera), Source(name, path, str(root.resolve()), camera=camera))
    episodes = {path for path, camera in found if camera is not None}
    for table in tables:
        for video in listed[table]:
            if not episodes & set(video.path.resolve().parents):
                found.setdefault((video.path.resolve(), None), Source(video.name, video.path, str(table.resolve())))
    if not found:
        raise InputError(f"{', '.join(map(str, given))}: holds no video and no recording in the raw DROID layout")
    sources = [_grouped(source, labelled) for source in _with_unique_names(list(found.values()), cameras)]
    if not labelled:
        return sources
    if not any(_windows_of(source, labelled) for source in sources):
        raise InputError(
            f"{labels}: none of its {len(labelled)} videos is among the sources; its paths are relative to its folder"
        )
    return [replace(source, windows=_windows_of(source, labelled)) for source in sources]


def _walk(root: Path, cameras: Sequence[Camera], suffixes: Collection[str]) -> Iterator[tuple[Path, Camera | None]]:
    if not root.is_dir():
        yield root, None
        return
    for folder, below, files in walk_folders(root):
        if is_episode(folder):
            below.clear()
            yield from ((folder, camera) for camera in cameras)
        else:
            yield from ((path, None) for path in files if path.suffix.lower() in suffixes)


def _grouped(source: Source, labelled: Mapping[Path, LabelledVideo]) -> Source:
    """An episode folder groups its cameras; a lone video is its own group, unless a table says otherwise."""
    video = labelled.get(source.path.resolve())
    said = video.episode if video is not None else None
    return replace(source, episode=said or source.name.partition("#")[0])


def _windows_of(source: Source, labelled: Mapping[Path, LabelledVideo]) -> dict[str, tuple[LabelledWindow, ...]]:
    path = source.path.resolve()
    files = [path] if source.camera is None else sorted((path / MOVIES).glob("*"))
    return {file.name: labelled[file.resolve()].windows for file in files if file.resolve() in labelled}


def _with_unique_names(found: Sequence[Source], cameras: Sequence[Camera]) -> list[Source]:
    """Name the camera where there are several, and prepend parent folders to names that would be equal."""
    depth = [0] * len(found)
    while True:
        names = [_name(source, above, several=len(cameras) > 1) for source, above in zip(found, depth, strict=True)]
        counts = Counter(names)
        equal = [index for index, name in enumerate(names) if counts[name] > 1]
        if not equal:
            named = [replace(source, name=name) for source, name in zip(found, names, strict=True)]
            return sorted(named, key=lambda source: source.name)
        for index in equal:
            depth[index] += 1
            if depth[index] > len(found[index].path.absolute().parts):
                raise InputError(f"{found[index].path}: another source has the same name; ingest their common parent folder")


def _name(source: Source, depth: int, *, several: bool) -> str:
    camera = f"#{source.camera}" if several and source.camera else ""
    above = source.path.absolute().parts[: -len(Path(source.name).parts)]
    return Path(*above[max(0, len(above) - depth) :], source.name).as_posix() + camera
