"""Gestures: what a hand does with a thing, in classes that no single frame tells apart; a something-something of the tabletop.

The hand has grasped a thing before a gesture begins. Halfway, every gesture passes a pose that is drawn in the same way
whatever the class, with the thing held: the frame there says nothing of what was before or comes after. Moving to either side,
away and closer, and lifting and lowering undo each other; left and right are the camera's. Putting behind another thing has its
counterpart in front of it, and dropping a pretended twin. A gesture is `GESTURE_FRAMES` long, and the frame of that pose is
number `PIVOT`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.simulation.environment import Observation
from vjepa2cli.simulation.motions import graspable
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, Scene, SceneObject
from vjepa2cli.simulation.tabletop import Tabletop

Array = NDArray[np.float64]

GESTURE_FRAMES, PIVOT = 16, 8
_DIRECTIONS = {
    "moving left to right": (0.0, 0.08, 0.0),
    "moving right to left": (0.0, -0.08, 0.0),
    "moving away": (-0.08, 0.0, 0.0),
    "moving closer": (0.08, 0.0, 0.0),
    "lifting": (0.0, 0.0, 0.06),
    "lowering": (0.0, 0.0, -0.06),
}
GESTURES = (*_DIRECTIONS, "putting behind", "putting in front", "dropping", "pretending to drop")

_PIVOT_LOW, _PIVOT_HIGH = np.array([0.43, -0.065, 0.120]), np.array([0.57, 0.065, 0.150])
_OVER = 0.17
_BESIDE = 0.085
_HELD, _REACH = 0.045, 0.012
_MOST_STEPS = 8


@dataclass(frozen=True)
class Gesture:
    """One played gesture: everything that was seen, from where to where it is, and whether the thing was held at the pivot."""

    label: str
    observed: tuple[Observation, ...]
    commanded: tuple[NDArray[np.float32], ...]
    start: int
    held: bool
    scene_seed: int

    @property
    def instruction(self) -> str:
        """What is done, in words."""
        return f"{self.label} something"


def play_gesture(environment: Tabletop, *, seed: int, index: int, max_translation: float) -> Gesture:
    """Play gesture `index`: classes come in turn, everything else is a function of (seed, index).

    The scenes are those in which another thing leaves room on both sides, for whichever class.
    """
    label = GESTURES[index % len(GESTURES)]
    rng = np.random.default_rng([seed, index, 23])
    scene_seed, scene = _roomy_scene(environment, rng)
    item = graspable(scene)
    other = next(one for one in scene.objects if one is not item)
    pivot = rng.uniform(_PIVOT_LOW, _PIVOT_HIGH)
    speed = rng.uniform(0.8, 1.0)
    player = _Player(environment, item, max_translation)
    player.begin(scene_seed)
    path = _path(label, pivot, other, speed)
    player.pick_up(path[0][0])
    start = len(player.observed) - 1
    held = False
    for number, (position, opening) in enumerate(path[1:], start=1):
        player.step(position, opening)
        if number == PIVOT:
            held = player.holds(scene.objects.index(item))
    return Gesture(label, tuple(player.observed), tuple(player.commanded), start, held, scene_seed)


def _roomy_scene(environment: Tabletop, rng: np.random.Generator) -> tuple[int, Scene]:
    while True:
        seed = int(rng.integers(2**31))
        scene = environment.scene(seed)
        item = graspable(scene)
        others = [one for one in scene.objects if one is not item]
        if others and WORKSPACE_LOW[0] + _BESIDE < others[0].x < WORKSPACE_HIGH[0] - _BESIDE and item.shape != "sphere":
            return seed, scene


def _path(label: str, pivot: Array, other: SceneObject, speed: float) -> list[tuple[Array, float]]:
    """Where the hand is, and how far closed, at each of `GESTURE_FRAMES` frames."""
    times = np.arange(GESTURE_FRAMES) - PIVOT
    if label in _DIRECTIONS:
        along = np.array(_DIRECTIONS[label]) * speed
        return [(np.clip(pivot + along * time / PIVOT, WORKSPACE_LOW, WORKSPACE_HIGH), 1.0) for time in times]
    positions, openings = [pivot] * GESTURE_FRAMES, [1.0] * GESTURE_FRAMES
    if label == "dropping":
        openings[PIVOT + 2 :] = [0.0] * (GESTURE_FRAMES - PIVOT - 2)
    elif label == "pretending to drop":
        # Down a little and up again, as if to let go.
        for number, depth in zip(range(PIVOT + 2, GESTURE_FRAMES), (0.02, 0.04, 0.04, 0.02, 0.0, 0.0), strict=True):
            positions[number] = pivot - [0.0, 0.0, depth * speed]
    else:
        side = -1 if label == "putting behind" else 1
        beside = np.array([other.x + side * _BESIDE, np.clip(other.y, WORKSPACE_LOW[1], WORKSPACE_HIGH[1]), pivot[2]])
        low = np.array([beside[0], beside[1], WORKSPACE_LOW[2]])
        for number, share in zip(range(PIVOT + 1, PIVOT + 4), (0.33, 0.67, 1.0), strict=True):
            positions[number] = pivot + share * (beside - pivot)
        positions[PIVOT + 4 :] = [low, low, low, beside]
        openings[PIVOT + 6 :] = [0.0, 0.0]
    return list(zip(positions, openings, strict=True))


class _Player:
    """Leads the hand from place to place and keeps what was seen."""

    def __init__(self, environment: Tabletop, item: SceneObject, max_translation: float) -> None:
        self.observed: list[Observation] = []
        self.commanded: list[NDArray[np.float32]] = []
        self._environment, self._item, self._most = environment, item, max_translation
        self._yaw = item.yaw if item.shape == "box" else 0.0

    def begin(self, scene_seed: int) -> None:
        """Put the open hand over the thing."""
        state = np.array([self._item.x, self._item.y, 0.12, 0.0, 0.0, self._yaw, 0.0])
        self.observed.append(self._environment.reset(seed=scene_seed, state=state))

    def pick_up(self, to: Array) -> None:
        """Grasp the thing, lift it, and bring it to where the gesture begins."""
        at = np.array([self._item.x, self._item.y])
        self._go(np.array([*at, WORKSPACE_LOW[2]]), 0.0)
        for _ in range(3):
            self.step(np.array([*at, WORKSPACE_LOW[2]]), 1.0)
        self._go(np.array([*at, _OVER]), 1.0)
        self._go(np.array([*to[:2], _OVER]), 1.0)
        self._go(to, 1.0)

    def _go(self, to: Array, opening: float) -> None:
        for _ in range(_MOST_STEPS):
            self.step(to, opening)
            if np.abs(to - self.observed[-1].state[:3]).max() < _REACH:
                return

    def step(self, to: Array, opening: float) -> None:
        """One period towards a place; roll and pitch are led back to pointing down, yaw to that of the grasp."""
        state = self.observed[-1].state.astype(np.float64)
        action = np.zeros(7)
        action[:3] = np.clip(to - state[:3], -self._most, self._most)
        action[3:6] = np.clip([-state[3], -state[4], self._yaw - state[5]], -0.35, 0.35)
        action[6] = opening - state[6]
        self.observed.append(self._environment.step(action))
        self.commanded.append(self._environment.commanded)

    def holds(self, index: int) -> bool:
        """Whether the thing is between the fingers."""
        gap = self._environment.object_positions()[index] - self.observed[-1].state[:3]
        return float(np.linalg.norm(gap)) < _HELD
