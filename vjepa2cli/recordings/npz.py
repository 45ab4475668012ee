"""NumPy archives, one episode each: the keys of a robot's description say what is what."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.arrays import assemble, numbers_among, pictures_of
from vjepa2cli.recordings.episode import Listing, Picture, Recording
from vjepa2cli.settings.robot import RobotConfig


class NpzReader:
    """Reads .npz files."""

    layout = "npz"
    usual_robot: str | None = None

    def recognises(self, path: Path) -> bool:
        """A file by its suffix."""
        return path.suffix.lower() == ".npz" and path.is_file()

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """The file itself."""
        return Listing(("",))

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """Every array that could be rows of numbers."""
        return numbers_among({name: values.shape for name, values in _arrays(path).items()})

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """All arrays of the file under their names."""
        arrays = _arrays(path)
        shapes = {name: values.shape for name, values in arrays.items()}
        return assemble(shapes, arrays.__getitem__, robot, path=path, where=str(path), pictures=partial(_pictures, path))


def _pictures(path: Path, key: str) -> Iterator[Picture]:
    yield from pictures_of(_arrays(path)[key])


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise RecordingError(f"{path}: not a readable .npz archive ({reason}); write plain arrays with numpy.savez") from None
