"""Searching what a user names: files, folders to the bottom, patterns, and in folders without videos their images."""

import glob
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vjepa2cli.errors import InputError, RecordingError
from vjepa2cli.recordings.episode import CAMERAS, Reader
from vjepa2cli.recordings.folders import walk_folders
from vjepa2cli.recordings.readers import reader_of
from vjepa2cli.settings.robot import RobotConfig


@dataclass(frozen=True)
class Wanted:
    """What to look for: suffixes of files, and cameras of episodes, without any the first one of the robot."""

    videos: Collection[str]
    images: Collection[str]
    cameras: Sequence[str] = ()
    robot: RobotConfig | None = None


@dataclass(frozen=True)
class Place:
    """A file, or one camera of an episode; `name` is relative to what the user named.

    `reader` reads the recording at `path`, of which `member` is the name of the episode, "" where it is the whole of it.
    """

    name: Path
    path: Path
    camera: str | None = None
    is_image: bool = False
    reader: Reader | None = None
    member: str = ""


@dataclass(frozen=True)
class Places:
    """What was found, images that were left because they lie beside videos, and remarks on sets of recordings by their names."""

    found: list[Place]
    images_passed_over: int = 0
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)


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
    if (reader := reader_of(place, with_files=True)) is not None:
        return _recording(reader, place, Path(place.absolute().name), wanted)
    return Places([Place(Path(place.absolute().name), place, is_image=place.suffix.lower() in wanted.images)])


def _match(pattern: Path, wanted: Wanted) -> Places:
    base = pattern_base(pattern)
    names_files = "." in pattern.name
    found: list[Place] = []
    remarks: dict[str, tuple[str, ...]] = {}
    # Path.glob does not enter linked folders, and from Python 3.13 on it takes '**' at the end differently.
    for match in sorted(map(Path, glob.iglob(str(pattern), recursive=True))):  # noqa: PTH207
        if match.is_dir() or reader_of(match, with_files=names_files) is not None:
            places = search(match, wanted) if match.is_file() else _walk(match, base, wanted)
            found += places.found
            remarks |= places.remarks
        elif names_files or match.suffix.lower() in {*wanted.videos, *wanted.images}:
            found.append(Place(match.relative_to(base), match, is_image=match.suffix.lower() in wanted.images))
    if not found:
        raise InputError(f"{pattern}: no video, image or recording matches this pattern; '**' stands for any depth of folders")
    return Places(list({(place.path, place.member, place.camera): place for place in found}.values()), remarks=remarks)


def _walk(folder: Path, base: Path, wanted: Wanted) -> Places:
    found: list[Place] = []
    images: list[Place] = []
    remarks: dict[str, tuple[str, ...]] = {}
    for places in _below(folder, base, wanted):
        remarks |= places.remarks
        for place in places.found:
            (images if place.is_image else found).append(place)
    return Places(found, len(images), remarks) if found else Places(images)


def _below(folder: Path, base: Path, wanted: Wanted) -> Iterator[Places]:
    # Files that may be anything are recordings only where somebody says what is in them.
    with_files = wanted.robot is not None
    for here, below, files in walk_folders(folder):
        if (reader := reader_of(here, with_files=False)) is not None:
            below.clear()
            yield _recording(reader, here, here.relative_to(base), wanted)
            continue
        for path in files:
            suffix = path.suffix.lower()
            if suffix in wanted.videos or suffix in wanted.images:
                yield Places([Place(path.relative_to(base), path, is_image=suffix in wanted.images)])
            elif (reader := reader_of(path, with_files=with_files)) is not None:
                yield _recording(reader, path, path.relative_to(base), wanted)


def _recording(reader: Reader, path: Path, name: Path, wanted: Wanted) -> Places:
    """The wanted cameras of every episode of a recording; one that cannot be listed stands for itself, to be refused."""
    cameras = wanted.cameras or tuple(wanted.robot.cameras if wanted.robot is not None else ())[:1] or CAMERAS[:1]
    whole = name if name.parts else Path(path.absolute().name)
    try:
        listing = reader.list_episodes(path, wanted.robot)
    except RecordingError:
        return Places([Place(whole, path, cameras[0], reader=reader)])
    places = [
        Place(name / member if member else whole, path, camera, reader=reader, member=member)
        for member in listing.episodes
        for camera in cameras
    ]
    return Places(places, remarks={whole.as_posix(): listing.remarks} if listing.remarks else {})
