"""The built-in environment: a Franka-like arm over a table with objects, one exterior camera, in plain MuJoCo."""

import atexit
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.simulation.arm import (
    FINGER_STROKE,
    HAND_COLLIDES,
    HOME,
    OBJECT_COLLIDES,
    ArmKinematics,
    add_arm,
    euler_to_matrix,
    matrix_to_euler,
)
from vjepa2cli.simulation.environment import Observation
from vjepa2cli.simulation.offscreen import import_mujoco, open_renderer
from vjepa2cli.simulation.scene import (
    COLOURS,
    ORIENTATION_LIMIT,
    SHAPES,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Scene,
    sample_scene,
    sample_start,
)

Array = NDArray[np.float64]

ROBOT = "vjepa2cli-tabletop"
_TIMESTEP = 0.005
_MOVING_SHARE = 0.7
_TICK = 2
_SETTLE_STEPS = 40
_GRIP_MARGIN = 0.4
_OBJECT_SIZE = 0.028
_OBJECT_MASS = 0.05


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
        num_objects: int = 2,
        camera_jitter: float = 0.0,
        light_jitter: float = 0.1,
    ) -> None:
        """`image_size` in pixels, `rate` in Hz, `camera_jitter` in metres, `light_jitter` a share of 1."""
        self._rate = rate
        self._num_objects, self._camera_jitter, self._light_jitter = num_objects, camera_jitter, light_jitter
        self._mujoco = mujoco = import_mujoco()
        self._model = _build_model(mujoco, num_objects=num_objects, image_size=image_size)
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
        self._target = HOME.copy()
        self._grip = 0.0
        self._commanded = np.zeros(7, np.float32)

    @property
    def rate(self) -> float:
        """Actions a second."""
        return self._rate

    def reset(self, *, seed: int, state: NDArray[np.floating] | None = None) -> Observation:
        """Set up the scene of `seed`, the hand at the pose `state` [7], or at one drawn from the seed; nothing is left of before.

        Raises InputError for a state that is not seven finite numbers; poses outside the workspace are clipped to it.
        """
        scene = self.scene(seed)
        pose = sample_start(seed, scene) if state is None else _check_seven(state, "state")
        self._mujoco.mj_resetData(self._model, self._data)
        _dress(self._mujoco, self._model, self._data, scene)
        position, rotation, self._grip = _clip_pose(pose[:3], euler_to_matrix(pose[3:6]), pose[6])
        self._target = self._kinematics.solve(position, rotation, start=HOME)
        self._commanded = _join(position, rotation, self._grip)
        self._data.qpos[self._joints] = self._data.ctrl[self._servos] = self._target
        self._data.qpos[self._fingers] = self._data.ctrl[self._grips] = FINGER_STROKE * (1 - self._grip)
        self._mujoco.mj_step(self._model, self._data, _SETTLE_STEPS)
        return self.observe()

    def scene(self, seed: int) -> Scene:
        """What `reset(seed=seed)` puts on the table."""
        return sample_scene(
            seed, num_objects=self._num_objects, camera_jitter=self._camera_jitter, light_jitter=self._light_jitter
        )

    def observe(self) -> Observation:
        """The camera's frame and the measured state."""
        self._mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, "exterior")
        return Observation(frame=self._renderer.render(), state=self._state())

    def step(self, action: NDArray[np.floating]) -> Observation:
        """Move by `action` [7] within one period; raises InputError for anything but seven finite numbers."""
        delta = _check_seven(action, "action")
        state = self._state().astype(np.float64)
        opening = min(self._grip, float(state[6]) + _GRIP_MARGIN)
        position, rotation, grip = _clip_pose(
            state[:3] + delta[:3], euler_to_matrix(delta[3:6]) @ euler_to_matrix(state[3:6]), opening + delta[6]
        )
        goal = self._kinematics.solve(position, rotation, start=self._target)
        self._commanded = _join(position, rotation, grip)
        self._move(goal, grip, num_steps=max(1, round(1 / (self._rate * _TIMESTEP))))
        return self.observe()

    @property
    def commanded(self) -> NDArray[np.float32]:
        """The state [7] that the last reset or step asked for, after clipping."""
        return self._commanded

    def object_positions(self) -> Array:
        """Where the objects' middles are now, [num_objects, 3] in metres, base frame."""
        bodies = [self._model.body(f"object{index}").id for index in range(self._num_objects)]
        return np.array(self._data.xpos[bodies])

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
            speed = 30 * now**2 * (1 - now) ** 2 / (duration * _TIMESTEP)
            self._data.ctrl[self._servos] = start + (goal - start) * (share + self._lead * speed)
            self._data.ctrl[self._grips] = FINGER_STROKE * (1 - start_grip - (grip - start_grip) * share)
            self._mujoco.mj_step(self._model, self._data, min(_TICK, num_steps - done))
        self._target, self._grip = goal, grip

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


def _build_model(mujoco: Any, *, num_objects: int, image_size: int) -> Any:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = _TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.global_.offwidth = spec.visual.global_.offheight = image_size
    spec.visual.quality.shadowsize = 512
    spec.visual.quality.offsamples = 0
    spec.visual.quality.numslices, spec.visual.quality.numstacks = 16, 8
    spec.stat.extent, spec.stat.center = 0.5, [0.5, 0.0, 0.1]
    spec.visual.headlight.specular = [0, 0, 0]
    spec.visual.headlight.ambient = [0, 0, 0]
    spec.visual.headlight.diffuse = [0.55, 0.55, 0.55]
    spec.add_texture(
        name="checker",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.62, 0.60, 0.55],
        rgb2=[0.50, 0.48, 0.45],
        width=64,
        height=64,
    )
    material = spec.add_material(name="table", texrepeat=[10, 10], specular=0, reflectance=0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "checker"
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.5, 1.5, 0.1],
        material="table",
        contype=0,
        conaffinity=OBJECT_COLLIDES,
    )
    # A spot lamp: the shadow map of a directional one speckles the table at this resolution.
    light = world.add_light(name="lamp", pos=[0.5, 0, 1.5], dir=[0, 0, -1], castshadow=True, specular=[0, 0, 0])
    light.type = mujoco.mjtLightType.mjLIGHT_SPOT
    light.cutoff, light.exponent, light.attenuation = 45, 0, [1, 0, 0]
    world.add_camera(name="exterior", pos=[1, 0, 1], fovy=44)
    add_arm(mujoco, spec)
    for index in range(num_objects):
        _add_object(mujoco, world, index)
    return spec.compile()


def _add_object(mujoco: Any, world: Any, index: int) -> None:
    """A free body with one geom a shape, of which an episode shows one; the compiled sizes bound every size it may get."""
    body = world.add_body(name=f"object{index}", pos=[0.5, 0, 0.1 + 0.1 * index])
    body.add_joint(name=f"object{index}", type=mujoco.mjtJoint.mjJNT_FREE, damping=1e-4)
    body.explicitinertial, body.mass, body.inertia, body.ipos = True, _OBJECT_MASS, [2e-5] * 3, [0, 0, 0]
    for shape in SHAPES:
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
        geom = body.add_geom(name=f"object{index}_{shape}", type=kind, size=[_OBJECT_SIZE] * 3)
        geom.friction, geom.condim = [1.2, 0.02, 0.002], 4
        geom.contype, geom.conaffinity = OBJECT_COLLIDES, OBJECT_COLLIDES | HAND_COLLIDES


def _dress(mujoco: Any, model: Any, data: Any, scene: Scene) -> None:
    """Write the scene's objects, lamp and camera over whatever the model held."""
    for index, item in enumerate(scene.objects):
        for shape in SHAPES:
            shown = shape == item.shape
            geom = model.geom(f"object{index}_{shape}").id
            model.geom_contype[geom] = OBJECT_COLLIDES if shown else 0
            model.geom_conaffinity[geom] = OBJECT_COLLIDES | HAND_COLLIDES if shown else 0
            model.geom_size[geom] = [item.size, item.size if shape != "sphere" else 0, item.size if shape == "box" else 0]
            model.geom_rgba[geom] = [*COLOURS[item.colour], 1.0 if shown else 0.0]
        start = model.joint(f"object{index}").qposadr[0]
        data.qpos[start : start + 7] = [item.x, item.y, item.size, np.cos(item.yaw / 2), 0, 0, np.sin(item.yaw / 2)]
    model.light("lamp").pos = scene.lamp_position
    model.light("lamp").diffuse = scene.lamp_colour
    model.light("lamp").ambient = scene.ambient
    back = scene.camera_position - scene.camera_target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right = right / np.linalg.norm(right)
    turned = np.stack([right, np.cross(back, right), back], axis=1)
    camera = model.camera("exterior")
    camera.pos = scene.camera_position
    mujoco.mju_mat2Quat(model.cam_quat[camera.id], turned.ravel())
