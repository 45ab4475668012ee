"""What every reader of robot recordings gives: one episode, its numbers row by row and the pictures of its cameras."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import RecordingError
from vjepa2cli.settings.robot import RobotConfig

Camera = Literal["exterior_1", "exterior_2", "wrist"]
CAMERAS: tuple[Camera, ...] = ("exterior_1", "exterior_2", "wrist")

# Times are often kept as float32, or rounded to milliseconds.
_RATE_TOLERANCE = 0.01
_UNEVEN = 0.5


@dataclass(frozen=True)
class Episode:
    """One recording: row t of `states` and frame t of each video show the same instant.

    states: float32 [T, 7], x, y, z in metres, extrinsic xyz Euler in radians, gripper 0 open to 1 closed, base frame.
    actions: float32 [T, 7], the commanded pose and gripper in the same units, or None.
    rate: rows a second, or None where the recording does not say. metadata: all that it says of itself.
    """

    name: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32] | None
    videos: dict[str, Path]
    rate: float | None
    robot: str
    instruction: str
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)


Picture = bytes | NDArray[np.uint8]
"""A coded image such as a JPEG, or pixels [Y, X, 3]."""


@dataclass(frozen=True)
class Footage:
    """The pictures of one camera: a video file, seconds `span` of one, or `pictures` that lie in the recording itself.

    extrinsics: the camera's pose [T, 6] in the robot's base frame, where it is known.
    """

    path: Path
    span: tuple[float, float] | None = None
    pictures: Callable[[], Iterator[Picture]] | None = None
    extrinsics: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Recording:
    """One episode as it was recorded: row t of the numbers and picture t of every camera show the same instant.

    states [T, n] and actions [T, m], or None, are as they were written; a description of the robot says what they are.
    cameras: by the names that the description gives them. rate: rows a second, told from the rows' own times where they have
    any, or None. files: what the episode is made of besides its footage. notes: what had to be mended or looked odd.
    """

    states: NDArray[Any]
    actions: NDArray[Any] | None
    cameras: Mapping[str, Footage]
    rate: float | None
    robot: str | None
    instruction: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The episodes of a recording by name, in order, and what is to be said of the set as a whole."""

    episodes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one format of recordings; it holds nothing, so that it can be sent to worker processes."""

    layout: str
    """What people call it."""
    usual_robot: str | None
    """The shipped robot that the layout itself describes, where it does."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or a folder is laid out as one recording or one set of them; it may still be damaged."""

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """Name the episodes that are there, "" for one that is the file or folder itself; raises RecordingError."""

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """Arrays of numbers by key, with the names of their numbers, as far as the recording has names for them."""

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """Read one of them; raises RecordingError for what is missing or damaged."""


def rate_of(times: Sequence[float] | NDArray[Any], declared: float | None) -> tuple[float | None, list[str]]:
    """Rows a second by the rows' own times, and what is to be said where another rate is declared or rows are uneven."""
    if len(times) < 2:
        return declared, []
    steps = np.diff(np.asarray(times, np.float64))
    if not (steps > 0).all():
        raise RecordingError(f"the time of row {int(np.argmin(steps > 0)) + 1} is not later than that of the row before")
    measured = 1 / float(np.mean(steps))
    notes = []
    if declared is not None and abs(measured / declared - 1) < _RATE_TOLERANCE:
        measured = declared
    elif declared is not None:
        notes.append(f"its rows run at {measured:.4g} Hz, not at the {declared:g} that is declared; the rows' times count")
    uneven = int((np.abs(steps * measured - 1) > _UNEVEN).sum())
    if uneven:
        notes.append(f"{uneven} of {len(steps)} steps between rows are off by more than half a period; rows may be missing")
    return measured, notes


def refuse_missing_cameras(robot: RobotConfig, there: Sequence[str], *, where: str) -> None:
    """Raise RecordingError where a description names no camera, with the line to add from those that are there."""
    if not robot.cameras:
        first = there[0] if there else "KEY"
        raise RecordingError(
            f"{where}: robot {robot.name} names no camera; add 'cameras: {{exterior_1: {{key: {first}}}}}' to its description "
            f"(there: {', '.join(there) or 'none'})"
        )
