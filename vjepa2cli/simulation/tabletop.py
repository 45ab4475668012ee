"""The built-in environment: a Franka-like arm over a table with objects, one exterior camera, in plain MuJoCo."""

import atexit
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.arm import FINGER_STROKE, HOME, ArmKinematics, euler_to_matrix, matrix_to_euler
from vjepa2cli.simulation.environment import Observation
from vjepa2cli.simulation.offscreen import import_mujoco, open_renderer
from vjepa2cli.simulation.scene import (
    ORIENTATION_LIMIT,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Scene,
    Wandering,
    sample_scene,
    sample_start,
)
from vjepa2cli.simulation.stage import TIMESTEP, build_model, dress

Array = NDArray[np.float64]

ROBOT = "vjepa2cli-tabletop"
VERSION = 2
"""Goes up whenever the same seeds and actions give other pictures or states."""
_DEFAULT_SCENE = SceneConfig()
_MOVING_SHARE = 0.7
_TICK = 2
_SETTLE_STEPS = 40
_GRIP_MARGIN = 0.4


@dataclass(frozen=True)
class Situation:
    """What is the case, for experts and success tests; no planner sees it.

    The hand's `state` [7], the middles of the `objects` [n, 3], their `yaws` [n], and which one both fingers touch (`held`).
    """

    state: NDArray[np.float32]
    objects: Array
    yaws: Array
    held: int | None


class Tabletop:
    """An Environment: the arm moves by end-effector deltas; the scene of an episode is a function of its seed alone.

    A delta is relative to the measured pose and is clipped to the workspace; it is carried out within one period, first a
    smooth motion, then rest. The gripper's delta is relative to its commanded opening, so that a held object stays held.
    """

    def __init__(
        self,
        *,
        image_size: int = 96,
        rate: float = 4.0,
        scene: SceneConfig = _DEFAULT_SCENE,
    ) -> None:
        """`image_size` in pixels, `rate` in Hz, `scene` what every episode draws its own scene from."""
        self._rate, self._config = rate, scene
        self._mujoco = mujoco = import_mujoco()
        self._model = build_model(mujoco, scene, image_size=image_size)
        self._data = mujoco.MjData(self._model)
        self._kinematics = ArmKinematics(mujoco, self._model)
        self._renderer: Any = open_renderer(self._model, image_size=image_size)
        self._closer = weakref.finalize(self, self._renderer.close)
        self._closer.atexit = False
        atexit.register(self._closer)
        names = [f"joint{index}" for index in range(len(HOME))]
        self._joints = np.array([self._model.joint(name).qposadr[0] for name in names])
        self._servos = np.array([self._model.actuator(f"servo{index}").id for index in range(len(HOME))])
        self._lead = -self._model.actuator_biasprm[self._servos, 2] / self._model.actuator_gainprm[self._servos, 0]
        self._fingers = np.array([self._model.joint(f"finger_{side}").qposadr[0] for side in ("left", "right")])
        self._grips = np.array([self._model.actuator(f"grip_{side}").id for side in ("left", "right")])
        self._site = self._model.site("tcp").id
        self._objects = np.array([self._model.body(f"object{index}").id for index in range(scene.num_objects)], np.int64)
        self._owners = {
            int(geom): index
            for index, body in enumerate(self._objects)
            for geom in np.flatnonzero(self._model.geom_bodyid == body)
        }
        self._pads = [self._model.geom(f"pad_{side}").id for side in ("left", "right")]
        self._movers = [self._model.body(f"mover{index}").mocapid[0] for index in range(scene.movers)]
        self._wanderings: list[tuple[Wandering, float]] = []
        self._target = HOME.copy()
        self._grip = 0.0
        self._commanded = np.zeros(7, np.float32)

    @property
    def rate(self) -> float:
        """Actions a second."""
        return self._rate

    def reset(self, *, seed: int, state: NDArray[np.floating] | None = None, moment: int = 0) -> Observation:
        """Set up the scene of `seed`, the hand at the pose `state` [7], or at one drawn from the seed; nothing is left of before.

        At another `moment` than 0 the movers are elsewhere, and the light is that of a goal image. Poses outside the workspace
        are clipped to it. Raises InputError for a state that is not seven finite numbers.
        """
        scene = sample_scene(seed, self._config, moment=moment)
        pose = sample_start(seed, scene) if state is None else _check_seven(state, "state")
        self._mujoco.mj_resetData(self._model, self._data)
        dress(self._mujoco, self._model, self._data, scene)
        self._wanderings = [
            (Wandering(mover, seed=seed, index=index, moment=moment), mover.size) for index, mover in enumerate(scene.movers)
        ]
        self._place_movers()
        position, rotation, self._grip = _clip_pose(pose[:3], euler_to_matrix(pose[3:6]), pose[6])
        self._target = self._kinematics.solve(position, rotation, start=HOME)
        self._commanded = _join(position, rotation, self._grip)
        self._data.qpos[self._joints] = self._data.ctrl[self._servos] = self._target
        self._data.qpos[self._fingers] = self._data.ctrl[self._grips] = FINGER_STROKE * (1 - self._grip)
        self._mujoco.mj_step(self._model, self._data, _SETTLE_STEPS)
        return self.observe()

    def scene(self, seed: int) -> Scene:
        """What `reset(seed=seed)` puts on the table."""
        return sample_scene(seed, self._config)

    def observe(self) -> Observation:
        """The camera's frame and the measured state."""
        self._mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, "exterior")
        return Observation(frame=self._renderer.render(), state=self._state())

    def step(self, action: NDArray[np.floating]) -> Observation:
        """Move by `action` [7] within one period; raises InputError for anything but seven finite numbers."""
        self.advance(action)
        return self.observe()

    def advance(self, action: NDArray[np.floating]) -> None:
        """Do what `step` does without a look at it, which takes most of its time."""
        delta = _check_seven(action, "action")
        state = self._state().astype(np.float64)
        opening = min(self._grip, float(state[6]) + _GRIP_MARGIN)
        position, rotation, grip = _clip_pose(
            state[:3] + delta[:3], euler_to_matrix(delta[3:6]) @ euler_to_matrix(state[3:6]), opening + delta[6]
        )
        goal = self._kinematics.solve(position, rotation, start=self._target)
        self._commanded = _join(position, rotation, grip)
        self._move(goal, grip, num_steps=max(1, round(1 / (self._rate * TIMESTEP))))
        for wandering, _ in self._wanderings:
            wandering.step()
        self._place_movers()

    @property
    def commanded(self) -> NDArray[np.float32]:
        """The state [7] that the last reset or step asked for, after clipping."""
        return self._commanded

    def situation(self) -> Situation:
        """Where the hand and all objects are."""
        rotations = self._data.xmat[self._objects]  # [n, 9]
        return Situation(
            state=self._state(),
            objects=self.object_positions(),
            yaws=np.arctan2(rotations[:, 3], rotations[:, 0]),
            held=self._held(),
        )

    def object_positions(self) -> Array:
        """Where the objects' middles are now, [num_objects, 3] in metres, base frame."""
        return np.array(self._data.xpos[self._objects])

    def close(self) -> None:
        """Close the renderer; a second call does nothing."""
        self._closer()
        atexit.unregister(self._closer)

    def _move(self, goal: Array, grip: float, *, num_steps: int) -> None:
        """Lead the joints from the present target to `goal` along a minimum-jerk profile, with velocity feed-forward."""
        start, start_grip = self._target, self._grip
        duration = _MOVING_SHARE * num_steps
        for done in range(0, num_steps, _TICK):
            now = min(1.0, (done + _TICK / 2) / duration)
            share = now**3 * (10 - 15 * now + 6 * now**2)
            speed = 30 * now**2 * (1 - now) ** 2 / (duration * TIMESTEP)
            self._data.ctrl[self._servos] = start + (goal - start) * (share + self._lead * speed)
            self._data.ctrl[self._grips] = FINGER_STROKE * (1 - start_grip - (grip - start_grip) * share)
            self._mujoco.mj_step(self._model, self._data, min(_TICK, num_steps - done))
        self._target, self._grip = goal, grip

    def _held(self) -> int | None:
        """The object that both fingers touch."""
        pairs = self._data.contact.geom
        touched = [
            {int(other) for pair in pairs if pad in pair for other in pair if other != pad} & self._owners.keys()
            for pad in self._pads
        ]
        both = {self._owners[geom] for geom in touched[0]} & {self._owners[geom] for geom in touched[1]}
        return min(both, default=None)

    def _place_movers(self) -> None:
        for place, (wandering, height) in zip(self._movers, self._wanderings, strict=True):
            self._data.mocap_pos[place] = [*wandering.place, height]

    def _state(self) -> NDArray[np.float32]:
        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        closed = np.clip(1 - self._data.qpos[self._fingers].mean() / FINGER_STROKE, 0, 1)
        return _join(self._data.site_xpos[self._site], rotation, float(closed))


def _join(position: Array, rotation: Array, grip: float) -> NDArray[np.float32]:
    return np.concatenate([position, matrix_to_euler(rotation), [grip]]).astype(np.float32)


def _check_seven(values: NDArray[np.floating], name: str) -> Array:
    vector = np.asarray(values, np.float64)
    if vector.shape != (7,) or not np.isfinite(vector).all():
        raise InputError(
            f"{name}: {np.array2string(vector, threshold=8)} is not seven finite numbers; "
            "give x, y, z in metres, roll, pitch, yaw in radians, gripper from 0 (open) to 1 (closed)"
        )
    return vector


def _clip_pose(position: Array, rotation: Array, grip: float) -> tuple[Array, Array, float]:
    angles = np.clip(matrix_to_euler(rotation), -ORIENTATION_LIMIT, ORIENTATION_LIMIT)
    return np.clip(position, WORKSPACE_LOW, WORKSPACE_HIGH), euler_to_matrix(angles), float(np.clip(grip, 0, 1))
