"""HDF5 files as robomimic, ACT and others write them: the keys of a robot's description say what is what."""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.arrays import assemble, numbers_among, pictures_of
from vjepa2cli.recordings.episode import Listing, Picture, Recording
from vjepa2cli.settings.robot import RobotConfig

SUFFIXES = (".h5", ".hdf5")


class Hdf5Reader:
    """Reads HDF5 files in which a group, or the whole file, is an episode."""

    layout = "HDF5"
    usual_robot: str | None = None

    def recognises(self, path: Path) -> bool:
        """A file by its suffix."""
        return path.suffix.lower() in SUFFIXES and path.is_file()

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """The groups that match `episodes` of the robot's description, in the order of their numbers; else the file."""
        if robot is None or robot.episodes is None:
            return Listing(("",))
        with _opened(path) as file:
            names = [name for name, item in _walk(file) if isinstance(item, h5py.Group)]
        found = [
            name for name in names if fnmatch.fnmatchcase(name, robot.episodes) and name.count("/") == robot.episodes.count("/")
        ]
        if not found:
            raise RecordingError(
                f"{path}: no group matches episodes {robot.episodes!r} (there: {', '.join(names[:8]) or 'none'}); mend robot.yaml"
            )
        return Listing(tuple(sorted(found, key=_by_number)))

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """Every array that could be rows of numbers, from the top of the file."""
        with _opened(path) as file:
            return numbers_among({name: tuple(item.shape) for name, item in _walk(file) if isinstance(item, h5py.Dataset)})

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """One group, or the file where `episode` is empty; keys are relative to it."""
        where = f"{path}: {episode}" if episode else str(path)
        with _opened(path) as file:
            group = file[episode] if episode else file
            shapes = {name: tuple(item.shape) for name, item in _walk(group) if isinstance(item, h5py.Dataset)}
            return assemble(
                shapes,
                lambda key: group[key][()],
                robot,
                path=path,
                where=where,
                pictures=partial(_pictures, path, episode),
            )


def _pictures(path: Path, episode: str, key: str) -> Iterator[Picture]:
    with _opened(path) as file:
        yield from pictures_of((file[episode] if episode else file)[key])


def _walk(group: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    group.visititems(lambda name, item: found.append((name, item)))
    return found


def _by_number(name: str) -> list[Any]:
    """demo_2 comes before demo_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _opened(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise RecordingError(f"{path}: not a readable HDF5 file ({' '.join(str(error).split())}); copy it again") from None
