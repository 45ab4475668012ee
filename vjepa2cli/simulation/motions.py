"""How the arm moves while it is recorded: scripted and random motions, each a function of its own random stream."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import CollectConfig, MotionMix
from vjepa2cli.simulation.experts import APPROACH, NEAR, Follow, Motion, Push, Stage, above, clip_to_table, down, grip, towards
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, Scene, SceneObject
from vjepa2cli.simulation.tabletop import Situation

Array = NDArray[np.float64]
_Translate: TypeAlias = Callable[[NDArray[np.floating]], Array]

_REST_SHARE, _REST_ACTIONS = 0.3, (8, 13)
_SCRIPTED = ("grasp", "push")
_PUSHED = (0.05, 0.12)
_PUSH_ACTIONS = 14


def sample_motion(rng: np.random.Generator, config: CollectConfig, scene: Scene) -> tuple[str, Motion]:
    """Draw one motion by its share in `config.motions`; returns its name and the motion, which draws on from `rng`.

    A script needs an object: in an empty scene the hand goes through waypoints instead.
    """
    names = sorted(MotionMix.model_fields)
    shares = np.array([getattr(config.motions, name) for name in names])
    name, reach = str(rng.choice(names, p=shares / shares.sum())), config.max_translation
    if name in _SCRIPTED and not scene.objects:
        name = "waypoints"
    if name not in _SCRIPTED:
        paths = {"waypoints": _waypoints, "autoregressive": _autoregressive, "uniform": _uniform}
        return name, _with_turns(rng, paths[name](rng, reach), config.gripper_noise)
    low, high = config.expert_noise
    noise = rng.uniform(low, high) if low < high else low
    motion = (
        grasp(rng, graspable(scene), max_translation=reach, noise=noise)
        if name == "grasp"
        else push(rng, scene, gripper=config.scene.gripper, max_translation=reach, noise=noise)
    )
    return name, _with_slips(rng, motion, config.expert_slips, reach)


def grasp(rng: np.random.Generator, item: SceneObject, *, max_translation: float, noise: float = 0.002) -> Motion:
    """Pick `item` up where the scene put it: over it, down, close, lift, carry, lower, open, and then begin again.

    `noise` is the standard deviation of every translation, in metres.
    """
    return Follow(_grasp_for_ever(rng, item), rng, max_translation=max_translation, noise=noise)


def _grasp_for_ever(rng: np.random.Generator, item: SceneObject) -> Iterator[Stage]:
    at, yaw = np.array([item.x, item.y]), item.yaw if item.shape == "box" else 0.0
    while True:
        yield above(at, yaw)
        yield down(at, yaw, gripper=0.0)
        yield grip(at, yaw, gripper=1.0)
        yield Stage(np.array([*at, rng.uniform(APPROACH, WORKSPACE_HIGH[2])]), yaw, 1.0, NEAR)
        at = rng.uniform(WORKSPACE_LOW[:2] + 0.03, WORKSPACE_HIGH[:2] - 0.03)
        yield above(at, yaw, gripper=1.0)
        yield down(at, yaw, gripper=1.0)
        yield grip(at, yaw, gripper=0.0)


def graspable(scene: Scene) -> SceneObject:
    """The first box, else whatever comes first."""
    return next((item for item in scene.objects if item.shape == "box"), scene.objects[0])


def pushable(scene: Scene) -> int | None:
    """The number of the first object that does not roll away."""
    return next((index for index, item in enumerate(scene.objects) if item.shape not in ("sphere", "ellipsoid")), None)


def push(rng: np.random.Generator, scene: Scene, *, gripper: str, max_translation: float, noise: float) -> Motion:
    """Push an object somewhere, and on to somewhere else; what rolls is pushed as well, if there is nothing better."""
    index = pushable(scene) or 0
    half = scene.objects[index].size
    current: list[tuple[Push, int]] = []

    def act(situation: Situation) -> Array:
        left = current[0][1] - 1 if current else 0
        if left <= 0 or np.linalg.norm(current[0][0].goal - situation.objects[index, :2]) < NEAR:
            goal = clip_to_table(situation.objects[index, :2] + rng.uniform(*_PUSHED) * _heading(rng), 0.03)
            left = _PUSH_ACTIONS
            current[:] = [
                (Push(index, goal, half_width=half, gripper=gripper, rng=rng, max_translation=max_translation, noise=noise), left)
            ]
        current[0] = (current[0][0], left)
        return current[0][0](situation)

    return act


def _heading(rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _with_slips(rng: np.random.Generator, motion: Motion, share: float, reach: float) -> Motion:
    """The motion, with random actions for so large a share of its own."""
    if not share:
        return motion

    def act(situation: Situation) -> Array:
        action = motion(situation)
        if rng.random() < share:
            action[:3] = rng.uniform(-reach, reach, 3)
            action[6] = rng.normal(0, 0.5)
        return action

    return act


def _with_turns(rng: np.random.Generator, translate: _Translate, gripper_noise: float) -> Motion:
    """A translation with a little yaw and gripper noise; roll and pitch are led back to pointing down."""

    def act(situation: Situation) -> Array:
        state = situation.state
        action = np.zeros(7)
        action[:3] = translate(state)
        action[3:5] = -np.asarray(state[3:5]) + rng.normal(0, 0.02, 2)
        action[5] = -0.1 * state[5] + rng.normal(0, 0.08)
        action[6] = rng.normal(0, gripper_noise) if rng.random() < 0.3 else 0.0
        return action

    return act


def _waypoints(rng: np.random.Generator, reach: float) -> _Translate:
    """From one place to the next; the hand rests at some of them."""
    speed = rng.uniform(0.4, 1.0) * reach
    target = [rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)]
    rest = [0]

    def translate(state: NDArray[np.floating]) -> Array:
        if rest[0] == 0 and np.linalg.norm(target[0] - state[:3]) < NEAR:
            target[0] = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            rest[0] = int(rng.integers(*_REST_ACTIONS)) if rng.random() < _REST_SHARE else 0
        if rest[0] > 0:
            rest[0] -= 1
            return np.zeros(3)
        return np.clip(towards(target[0] - state[:3], speed) + rng.normal(0, 0.1 * reach, 3), -reach, reach)

    return translate


def _autoregressive(rng: np.random.Generator, reach: float) -> _Translate:
    persistence = rng.uniform(0.5, 0.9)
    velocity = [rng.normal(0, 0.47 * reach, 3)]

    def translate(state: NDArray[np.floating]) -> Array:
        velocity[0] = persistence * velocity[0] + np.sqrt(1 - persistence**2) * rng.normal(0, 0.47 * reach, 3)
        at_low, at_high = state[:3] < WORKSPACE_LOW + 0.005, state[:3] > WORKSPACE_HIGH - 0.005
        velocity[0] = np.where(at_low, np.abs(velocity[0]), np.where(at_high, -np.abs(velocity[0]), velocity[0]))
        return np.clip(velocity[0], -reach, reach)

    return translate


def _uniform(rng: np.random.Generator, reach: float) -> _Translate:
    return lambda state: rng.uniform(-reach, reach, 3)
