"""What every reader of robot recordings gives: one episode, its states row by row and its cameras' video files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Camera = Literal["exterior_1", "exterior_2", "wrist"]
CAMERAS: tuple[Camera, ...] = ("exterior_1", "exterior_2", "wrist")


@dataclass(frozen=True)
class Episode:
    """One recording: row t of `states` and frame t of each video show the same instant.

    states: float32 [T, 7], x, y, z in metres, extrinsic xyz Euler in radians, gripper 0 open to 1 closed, base frame.
    actions: float32 [T, 7], the commanded pose and gripper in the same units, or None.
    rate: rows a second, or None where the recording does not say.
    """

    name: str
    states: NDArray[np.float32]
    actions: NDArray[np.float32] | None
    videos: dict[Camera, Path]
    rate: float | None
    robot: str
    instruction: str
