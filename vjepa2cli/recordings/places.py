"""Searching what a user names: files, folders to the bottom, patterns, and in folders without videos their images."""

import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.droid import is_episode
from vjepa2cli.recordings.episode import Camera
from vjepa2cli.recordings.folders import walk_folders


@dataclass(frozen=True)
class Wanted:
    """What to look for: suffixes of files, and cameras of episodes."""

    videos: Collection[str]
    images: Collection[str]
    cameras: Sequence[Camera]


@dataclass(frozen=True)
class Place:
    """A file, or one camera of an episode folder; `name` is relative to what the user named."""

    name: Path
    path: Path
    camera: Camera | None = None
    is_image: bool = False


@dataclass(frozen=True)
class Places:
    """What was found, and images that were left because they lie beside videos."""

    found: list[Place]
    images_passed_over: int = 0


def is_pattern(path: Path) -> bool:
    """Whether a path is to be matched, such as `clips/**/*.mp4`, rather than taken by its name."""
    return glob.has_magic(str(path)) and not path.exists()


def pattern_base(pattern: Path) -> Path:
    """The folder that a pattern's matches lie below."""
    plain = 0
    while plain < len(pattern.parts) and not glob.has_magic(pattern.parts[plain]):
        plain += 1
    return Path(*pattern.parts[:plain])


def search(place: Path, wanted: Wanted) -> Places:
    """Find what a file, a folder or a pattern stands for; raises InputError where nothing is there."""
    if is_pattern(place):
        return _match(place, wanted)
    if not place.exists():
        raise InputError(
            f"{place}: no such file or folder; give videos, folders, patterns, recordings or a .csv or .jsonl of videos"
        )
    if place.is_dir():
        return _walk(place, place, wanted)
    return Places([Place(Path(place.absolute().name), place, is_image=place.suffix.lower() in wanted.images)])


def _match(pattern: Path, wanted: Wanted) -> Places:
    base = pattern_base(pattern)
    names_files = "." in pattern.name
    found: list[Place] = []
    # Path.glob does not enter linked folders, and from Python 3.13 on it takes '**' at the end differently.
    for match in sorted(map(Path, glob.iglob(str(pattern), recursive=True))):  # noqa: PTH207
        if match.is_dir():
            found += _walk(match, base, wanted).found
        elif names_files or match.suffix.lower() in {*wanted.videos, *wanted.images}:
            found.append(Place(match.relative_to(base), match, is_image=match.suffix.lower() in wanted.images))
    if not found:
        raise InputError(f"{pattern}: no video, image or recording matches this pattern; '**' stands for any depth of folders")
    return Places(list({(place.path, place.camera): place for place in found}.values()))


def _walk(folder: Path, base: Path, wanted: Wanted) -> Places:
    found: list[Place] = []
    images: list[Place] = []
    for place in _below(folder, base, wanted):
        (images if place.is_image else found).append(place)
    return Places(found, len(images)) if found else Places(images)


def _below(folder: Path, base: Path, wanted: Wanted) -> Iterator[Place]:
    for here, below, files in walk_folders(folder):
        if is_episode(here):
            below.clear()
            yield from (Place(here.relative_to(base), here, camera) for camera in wanted.cameras)
            continue
        for path in files:
            suffix = path.suffix.lower()
            if suffix in wanted.videos or suffix in wanted.images:
                yield Place(path.relative_to(base), path, is_image=suffix in wanted.images)
