"""What a robot, real or simulated, must offer so that a world model can be evaluated on it, and what a task on it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.floating]
Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Observation:
    """What the robot sees and where it is.

    `frame` is uint8 [Y, X, 3], RGB. `state` is float32 [S], measured and not commanded: the numbers that the world model was
    trained on. For an end effector these are DROID's seven: x, y, z in metres in the base frame, extrinsic xyz Euler angles in
    radians, gripper from 0 (open) to 1 (closed).
    """

    frame: Pixels
    state: NDArray[np.float32]


Policy: TypeAlias = Callable[[Observation], NDArray[np.float64]]
"""Gives the next action for what is seen."""


class Environment(Protocol):
    """One robot before one camera, moved by changes of its state at a fixed `rate` in Hz."""

    @property
    def rate(self) -> float:
        """Actions a second."""

    def reset(self, *, seed: int) -> Observation:
        """Begin the episode that `seed` names; nothing is left of the one before."""

    def step(self, action: Numbers) -> Observation:
        """Move by `action` [S], the change of the state (rotation: R_{t+1} R_t^T), within one period of the rate."""

    def close(self) -> None:
        """Give back what the environment holds; it cannot be used afterwards."""


@dataclass(frozen=True)
class View:
    """An image goal, and how many actions are allowed for it."""

    frame: Pixels
    actions: int


@dataclass(frozen=True)
class Measure:
    """How things stand: whether the task is done, and how far off that is, in metres or in the task's own unit."""

    succeeded: bool
    remaining: float


class Episode(Protocol):
    """One episode of a task. It can be begun as often as there are policies; it is the same every time."""

    @property
    def goals(self) -> Sequence[View]:
        """What a planner is shown, one after the other; more than one are sub-goals."""

    def begin(self) -> Observation:
        """Put the environment at the start."""

    def measure(self) -> Measure:
        """Look at how things stand now."""

    def expert(self, max_translation: float) -> Policy | None:
        """A policy that knows more than the pictures, or None; `max_translation` is the largest change of an axis in metres."""

    def describe(self) -> dict[str, Any]:
        """What makes the episode what it is, as JSON types."""


class Task(Protocol):
    """Something to be done in an environment.

    `plans_gripper`: whether a planner moves the gripper, or leaves it as it is. `unit` is that of `Measure.remaining`.
    """

    @property
    def plans_gripper(self) -> bool:
        """Whether the gripper has to move."""

    @property
    def unit(self) -> str:
        """`m` for metres, or a name of the task's own."""

    def prepare(self, seed: int) -> Episode:
        """The episode of `seed`: its goal images are taken, and it has not begun."""


@dataclass(frozen=True)
class Suite:
    """An environment with its tasks by name.

    `robot` is what its recordings call it. `version` tells one behaviour of the environment from another; a success rate belongs
    to it.
    """

    environment: Environment
    tasks: Mapping[str, Task]
    robot: str
    version: str
