"""Scripts that know where everything is: how to pick up, carry, put down and push."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.simulation.arm import HANDS, Hand
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from vjepa2cli.simulation.tabletop import Situation

Array = NDArray[np.float64]
Motion: TypeAlias = Callable[[Situation], Array]
"""Gives the next action [7] for what is the case."""

LOW = float(WORKSPACE_LOW[2])
"""Height of the hand at which the fingers are around what stands on the table."""
APPROACH = 0.17
ALIGNED, NEAR = 0.006, 0.02
PUSHED = 0.015
"""Metres from its goal at which an object is not pushed any more."""
_GIVE_UP = 12
_MOST_TURN = 0.35


class Stage(NamedTuple):
    """Where to go, and when that is done: closer than `tolerance` (metres), and after `stay` actions at least."""

    position: Array
    yaw: float
    gripper: float
    tolerance: float
    stay: int = 0


class Follow:
    """A motion that goes through stages; after the last one it rests there.

    `noise` is the standard deviation of every translation, in metres, drawn from `rng`.
    """

    def __init__(self, stages: Iterator[Stage], rng: np.random.Generator, *, max_translation: float, noise: float = 0.0) -> None:
        """Raises StopIteration where there is no stage."""
        self._stages, self._rng, self._reach, self._noise = stages, rng, max_translation, noise
        self._stage, self._patience = next(stages), 0
        self.completed = 0
        self.done = False

    def __call__(self, situation: Situation) -> Array:
        """The action [7] towards the stage that is due."""
        state = situation.state
        self._patience += 1
        stage = self._stage
        arrived = np.linalg.norm(stage.position - state[:3]) < stage.tolerance and abs(stage.yaw - state[5]) < 0.06
        if not self.done and self._patience > stage.stay and (arrived or self._patience > stage.stay + _GIVE_UP):
            self._go_on()
        target, yaw, gripper = self._stage[:3]
        action = np.zeros(7)
        action[:3] = towards(target - state[:3], self._reach) + self._rng.normal(0, self._noise, 3)
        action[3:6] = np.clip([-state[3], -state[4], yaw - state[5]], -_MOST_TURN, _MOST_TURN)
        action[6] = gripper - state[6]
        return action

    def _go_on(self) -> None:
        self.completed += 1
        following = next(self._stages, None)
        if following is None:
            self.done = True
        else:
            self._stage, self._patience = following, 1


def above(at: Array, yaw: float, *, height: float = APPROACH, gripper: float = 0.0) -> Stage:
    """Over a place [2] on the table."""
    return Stage(np.array([*at, height]), yaw, gripper, ALIGNED if gripper == 0 else NEAR)


def down(at: Array, yaw: float, *, gripper: float) -> Stage:
    """At a place [2] on the table, the gripper as it is."""
    return Stage(np.array([*at, LOW]), yaw, gripper, ALIGNED)


def grip(at: Array, yaw: float, *, gripper: float) -> Stage:
    """Close or open there."""
    return Stage(np.array([*at, LOW]), yaw, gripper, np.inf, 2)


def towards(offset: Array, reach: float) -> Array:
    """`offset` shortened, direction kept, until no axis exceeds `reach`."""
    largest = float(np.abs(offset).max())
    return offset if largest <= reach else offset * (reach / largest)


class Push:
    """A motion that pushes an object over the table to a place [2], with the gripper closed, from wherever the hand is."""

    _STEP, _OFF_LINE, _ROOM = 0.03, 0.012, 0.012

    def __init__(
        self,
        index: int,
        goal: Array,
        *,
        half_width: float,
        gripper: str,
        rng: np.random.Generator,
        max_translation: float,
        noise: float = 0.0,
    ) -> None:
        """`half_width` is the object's in metres, `gripper` names the hand."""
        self._index, self.goal, self._half, self._hand = index, goal, half_width, HANDS[gripper]
        self._rng, self._reach, self._noise = rng, max_translation, noise

    def __call__(self, situation: Situation) -> Array:
        """The next action [7]."""
        state, item = situation.state.astype(np.float64), situation.objects[self._index, :2]
        left = self.goal - item
        action = np.zeros(7)
        action[3:6] = np.clip(-state[3:6], -_MOST_TURN, _MOST_TURN)
        action[6] = 1.0 - state[6]
        action[:3] = towards(self._move(state, item, left), self._reach) + self._rng.normal(0, self._noise, 3)
        return action

    def _move(self, state: Array, item: Array, left: Array) -> Array:
        """The translation [3]: behind the object, or on along the line to the goal."""
        distance = float(np.linalg.norm(left))
        if distance < PUSHED:
            return np.zeros(3)
        along = left / distance
        behind = item - (self.standoff(along) + self._ROOM) * along
        offset = behind - state[:2]
        aside = float(abs(offset @ np.array([-along[1], along[0]])))
        is_behind = (item - state[:2]) @ along > 0
        low = state[2] < LOW + 0.02
        if low and is_behind and aside < self._OFF_LINE:
            gap = float((item - state[:2]) @ along) - self.standoff(along)
            step = min(self._STEP, distance) + max(0.0, gap)
            sideways = offset - (offset @ along) * along
            return np.array([*(step * along + sideways), LOW - state[2]])
        over = np.linalg.norm(offset) < NEAR
        if over:
            return np.array([*offset, LOW - state[2]])
        if state[2] < APPROACH - 0.04:
            return np.array([0.0, 0.0, APPROACH - state[2]])
        return np.array([*offset, APPROACH - state[2]])

    def standoff(self, along: Array) -> float:
        """Metres from the hand's middle to the object's when they touch, in a direction [2]."""
        return standoff(self._hand, self._half, along)


def standoff(hand: Hand, half_width: float, along: Array) -> float:
    """Metres from the middle of a closed hand to that of an object that it touches, in a direction [2] over the table."""
    return float(hand.finger[0] * abs(along[0]) + 2 * hand.finger[1] * abs(along[1]) + half_width)


def clip_to_table(place: Array, margin: float) -> Array:
    """A place [2] within the workspace, so far from its edge."""
    return np.clip(place, WORKSPACE_LOW[:2] + margin, WORKSPACE_HIGH[:2] - margin)
