"""What a robot, real or simulated, must offer so that a world model can be collected from it and evaluated on it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observation:
    """What the robot sees and where its hand is.

    `frame` is uint8 [Y, X, 3], RGB. `state` is float32 [7] in DROID's conventions: x, y, z in metres in the base frame,
    extrinsic xyz Euler angles in radians, gripper from 0 (open) to 1 (closed); all of it measured, not commanded.
    """

    frame: NDArray[np.uint8]
    state: NDArray[np.float32]


class Environment(Protocol):
    """One robot before one camera, moved by end-effector pose deltas at a fixed `rate` in Hz."""

    @property
    def rate(self) -> float:
        """Actions a second."""

    def reset(self, *, seed: int, state: NDArray[np.floating] | None = None) -> Observation:
        """Begin the episode that `seed` names, the hand at the pose `state` [7] where one is given."""

    def observe(self) -> Observation:
        """Look once more without moving."""

    def step(self, action: NDArray[np.floating]) -> Observation:
        """Move by `action` [7], the delta of the state (rotation: R_{t+1} R_t^T), within one period of the rate."""

    def close(self) -> None:
        """Give back what the environment holds; it cannot be used afterwards."""
