"""The readers of robot recordings, in the order in which they are asked, and what is wrong where nobody described the robot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vjepa2cli import config as configs
from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.droid import DroidReader
from vjepa2cli.recordings.episode import Reader
from vjepa2cli.recordings.hdf5 import Hdf5Reader
from vjepa2cli.recordings.lerobot import LeRobotReader
from vjepa2cli.recordings.npz import NpzReader
from vjepa2cli.recordings.rlds import RldsReader
from vjepa2cli.settings.robot import RobotConfig

FOLDER_READERS: tuple[Reader, ...] = (DroidReader(), LeRobotReader(), RldsReader())
FILE_READERS: tuple[Reader, ...] = (Hdf5Reader(), NpzReader())

_LIKELY = ("observation.state", "observation/state", "observation/robot_state", "observations/qpos", "qpos", "state")


def reader_of(path: Path, *, with_files: bool) -> Reader | None:
    """The reader for a folder, or for a file; `with_files` also takes formats in which anything could be a recording."""
    readers = FOLDER_READERS if path.is_dir() else FILE_READERS if with_files else ()
    return next((reader for reader in readers if reader.recognises(path)), None)


def described_robot(reader: Reader, path: Path, episode: str, robot: RobotConfig | None) -> RobotConfig:
    """The robot of a recording: the one that is given, else the one that the layout stands for.

    Raises RecordingError, with the line to add, where nobody says what the numbers are.
    """
    if robot is not None:
        return robot
    if reader.usual_robot is not None:
        return configs.load_robot(reader.usual_robot)
    numbers = reader.list_numbers(path, episode)
    there = ", ".join(f"{key} {len(names)}" for key, names in numbers.items() if names) or "nothing"
    raise RecordingError(
        f"{path}: nobody says what its numbers are (there: {there}); describe the robot in a file that begins "
        f"'{{name: mine, state: {_first_line(numbers)}, ...' and give it with --robot, or one of "
        f"{', '.join(configs.robot_names())} if it is that ('vjepa2 config show droid' shows one)"
    )


def _first_line(numbers: Mapping[str, Sequence[str]]) -> str:
    """The state as a description would have it, of the array that is likeliest to be it."""
    keys = [key for key, names in numbers.items() if names]
    key = next((key for likely in _LIKELY for key in keys if key.startswith(likely)), keys[0] if keys else "KEY")
    names = list(numbers.get(key, ["x"]))
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{{keys: [{key}], numbers: [{{names: [{', '.join(names[:3])}{more}], unit: rad}}]}}"
