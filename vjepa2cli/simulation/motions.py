"""How the arm moves while it is recorded: scripted and random motions, each a function of its own random stream."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import MotionMix
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, Scene, SceneObject

Array = NDArray[np.float64]
Motion: TypeAlias = Callable[[NDArray[np.floating]], Array]
"""Gives the next action [7] for the measured state [7]."""

_REACHED = 0.02
_REST_SHARE, _REST_ACTIONS = 0.3, (8, 13)
_ALIGNED = 0.006
_APPROACH_HEIGHT = 0.17


def sample_motion(rng: np.random.Generator, mix: MotionMix, scene: Scene, *, max_translation: float) -> tuple[str, Motion]:
    """Draw one motion by its share in `mix`; returns its name and the motion, which draws on from `rng`.

    A grasp needs an object: in an empty scene the hand goes through waypoints instead.
    """
    names = sorted(type(mix).model_fields)
    shares = np.array([getattr(mix, name) for name in names])
    name = str(rng.choice(names, p=shares / shares.sum()))
    if name == "grasp" and not scene.objects:
        name = "waypoints"
    if name == "grasp":
        return name, grasp(rng, graspable(scene), max_translation=max_translation)
    paths = {"waypoints": _waypoints, "autoregressive": _autoregressive, "uniform": _uniform}
    return name, _with_turns(rng, paths[name](rng, max_translation))


def grasp(rng: np.random.Generator, item: SceneObject, *, max_translation: float, noise: float = 0.002) -> Motion:
    """Pick `item` up where the scene put it: over it, down, close, lift, carry, lower, open, and then begin again.

    `noise` is the standard deviation of every translation, in metres.
    """
    script = _grasp_script(rng, item)
    stage = [next(script)]
    patience = [0]

    def act(state: NDArray[np.floating]) -> Array:
        target, yaw, opening, tolerance, stay = stage[0]
        patience[0] += 1
        arrived = np.linalg.norm(target - state[:3]) < tolerance and abs(yaw - state[5]) < 0.06
        if patience[0] > stay and (arrived or patience[0] > stay + 12):
            stage[0], patience[0] = next(script), 1
            target, yaw, opening, tolerance, stay = stage[0]
        action = np.zeros(7)
        action[:3] = _towards(target - state[:3], max_translation) + rng.normal(0, noise, 3)
        action[3:6] = np.clip([-state[3], -state[4], yaw - state[5]], -0.35, 0.35)
        action[6] = opening - state[6]
        return action

    return act


_Stage: TypeAlias = tuple[Array, float, float, float, int]


def _grasp_script(rng: np.random.Generator, item: SceneObject) -> Iterator[_Stage]:
    """Stages for ever: where to, yaw, gripper, how close is there (metres), and for how many actions at least."""
    at, yaw = np.array([item.x, item.y]), item.yaw if item.shape == "box" else 0.0
    low = WORKSPACE_LOW[2]
    while True:
        yield np.array([*at, _APPROACH_HEIGHT]), yaw, 0.0, _ALIGNED, 0
        yield np.array([*at, low]), yaw, 0.0, _ALIGNED, 0
        yield np.array([*at, low]), yaw, 1.0, np.inf, 2
        yield np.array([*at, rng.uniform(_APPROACH_HEIGHT, WORKSPACE_HIGH[2])]), yaw, 1.0, _REACHED, 0
        at = rng.uniform(WORKSPACE_LOW[:2] + 0.03, WORKSPACE_HIGH[:2] - 0.03)
        yield np.array([*at, _APPROACH_HEIGHT]), yaw, 1.0, _REACHED, 0
        yield np.array([*at, low]), yaw, 1.0, _ALIGNED, 0
        yield np.array([*at, low]), yaw, 0.0, np.inf, 2


def graspable(scene: Scene) -> SceneObject:
    """The first box, else whatever comes first."""
    return next((item for item in scene.objects if item.shape == "box"), scene.objects[0])


def _towards(offset: Array, reach: float) -> Array:
    """`offset` shortened, direction kept, until no axis exceeds `reach`."""
    largest = float(np.abs(offset).max())
    return offset if largest <= reach else offset * (reach / largest)


def _with_turns(rng: np.random.Generator, translate: Motion) -> Motion:
    """A translation with a little yaw and gripper noise; roll and pitch are led back to pointing down."""

    def act(state: NDArray[np.floating]) -> Array:
        action = np.zeros(7)
        action[:3] = translate(state)
        action[3:5] = -np.asarray(state[3:5]) + rng.normal(0, 0.02, 2)
        action[5] = -0.1 * state[5] + rng.normal(0, 0.08)
        action[6] = rng.normal(0, 0.25) if rng.random() < 0.3 else 0.0
        return action

    return act


def _waypoints(rng: np.random.Generator, reach: float) -> Motion:
    """From one place to the next; the hand rests at some of them."""
    speed = rng.uniform(0.4, 1.0) * reach
    target = [rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)]
    rest = [0]

    def translate(state: NDArray[np.floating]) -> Array:
        if rest[0] == 0 and np.linalg.norm(target[0] - state[:3]) < _REACHED:
            target[0] = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            rest[0] = int(rng.integers(*_REST_ACTIONS)) if rng.random() < _REST_SHARE else 0
        if rest[0] > 0:
            rest[0] -= 1
            return np.zeros(3)
        return np.clip(_towards(target[0] - state[:3], speed) + rng.normal(0, 0.1 * reach, 3), -reach, reach)

    return translate


def _autoregressive(rng: np.random.Generator, reach: float) -> Motion:
    persistence = rng.uniform(0.5, 0.9)
    velocity = [rng.normal(0, 0.47 * reach, 3)]

    def translate(state: NDArray[np.floating]) -> Array:
        velocity[0] = persistence * velocity[0] + np.sqrt(1 - persistence**2) * rng.normal(0, 0.47 * reach, 3)
        at_low, at_high = state[:3] < WORKSPACE_LOW + 0.005, state[:3] > WORKSPACE_HIGH - 0.005
        velocity[0] = np.where(at_low, np.abs(velocity[0]), np.where(at_high, -np.abs(velocity[0]), velocity[0]))
        return np.clip(velocity[0], -reach, reach)

    return translate


def _uniform(rng: np.random.Generator, reach: float) -> Motion:
    return lambda state: rng.uniform(-reach, reach, 3)
