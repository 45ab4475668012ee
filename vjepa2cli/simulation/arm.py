"""A Franka-like seven-joint arm of primitives with a two-finger hand: its body, its kinematics and its servo gains."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Modified Denavit-Hartenberg rows (a, alpha, d) of a Franka Panda. Source: https://frankaemika.github.io/docs/control_parameters.html
_DH = (
    (0.0, 0.0, 0.333),
    (0.0, -np.pi / 2, 0.0),
    (0.0, np.pi / 2, 0.316),
    (0.0825, np.pi / 2, 0.0),
    (-0.0825, -np.pi / 2, 0.384),
    (0.0, np.pi / 2, 0.0),
    (0.088, np.pi / 2, 0.0),
)
_FLANGE = (0.0, 0.0, 0.107)
_LIMITS = ((-2.9, 2.9), (-1.76, 1.76), (-2.9, 2.9), (-3.07, -0.07), (-2.9, 2.9), (-0.02, 3.75), (-2.9, 2.9))
_STIFFNESS = (4000.0, 4000.0, 3000.0, 3000.0, 1500.0, 1500.0, 1000.0)
_DAMPING = (100.0, 100.0, 75.0, 60.0, 25.0, 25.0, 20.0)
HOME = np.array([0.0, -0.10, 0.0, -2.30, 0.0, 2.20, np.pi / 4])
"""Joint angles over the middle of the workspace, hand down; the redundant seventh freedom is drawn to them."""

FINGER_STROKE = 0.042
"""Metres that each finger travels from closed to open."""
_TCP_HEIGHT = 0.118
_FINGER_HEIGHT = 0.112
HAND_COLLIDES, OBJECT_COLLIDES = 1, 2
"""Contact bits: the hand touches objects only; objects touch the hand, the table and each other; arm links touch nothing."""

_WHITE, _GREY, _DARK = [0.90, 0.90, 0.92, 1.0], [0.45, 0.45, 0.50, 1.0], [0.12, 0.12, 0.14, 1.0]
_YELLOW, _RED, _BLUE = [0.95, 0.80, 0.10, 1.0], [1.0, 0.10, 0.08, 1.0], [0.10, 0.25, 1.0, 1.0]


@dataclass(frozen=True)
class Hand:
    """Half sizes in metres of a finger, the palm and the cap above it (radius, half height); colours of cap, left and right."""

    finger: tuple[float, float, float]
    palm: tuple[float, float, float]
    cap: tuple[float, float]
    colours: tuple[list[float], list[float], list[float]]


HANDS = {
    "large": Hand((0.022, 0.018, 0.042), (0.030, 0.080, 0.018), (0.046, 0.018), (_YELLOW, _RED, _BLUE)),
    "small": Hand((0.011, 0.007, 0.042), (0.018, 0.056, 0.014), (0.030, 0.018), (_GREY, _DARK, _DARK)),
}
"""The large one is told from afar; the small one is like a real one, in size and in colour."""


def add_arm(mujoco: Any, spec: Any, *, gripper: Literal["large", "small"] = "large") -> None:
    """Add the arm to a `mujoco.MjSpec` at the origin of its world: joints `joint0..6`, `finger_left/right`, site `tcp`.

    The frame of `tcp` is parallel to the base frame when the hand points straight down, so that the Euler angles of
    ordinary poses are near zero and never wrap (a real Franka's roll lies at the seam, at pi).
    """
    body = spec.worldbody
    for index, (a, alpha, d) in enumerate(_DH):
        body = body.add_body(name=f"link{index}", pos=_offset(a, alpha, d), quat=[np.cos(alpha / 2), np.sin(alpha / 2), 0, 0])
        body.gravcomp = 1
        body.add_joint(name=f"joint{index}", axis=[0, 0, 1], range=_LIMITS[index], limited=True, damping=1, armature=0.1)
        end = _offset(*(_DH[index + 1] if index + 1 < len(_DH) else _FLANGE))
        if np.linalg.norm(end) > 0.01:
            radius = 0.05 if index < 4 else 0.030
            _add_shape(mujoco, body, "CAPSULE", [radius, 0, 0], _WHITE, mass=0.5, fromto=[0, 0, 0, *end])
        else:
            _add_shape(mujoco, body, "SPHERE", [0.050 if index < 4 else 0.042, 0, 0], _GREY, mass=0.5)
        actuator = spec.add_actuator(name=f"servo{index}", target=f"joint{index}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=_STIFFNESS[index], kv=_DAMPING[index])
    _add_hand(mujoco, spec, body, HANDS[gripper])


def _add_hand(mujoco: Any, spec: Any, flange: Any, shape: Hand) -> None:
    cap, left, right = shape.colours
    hand = flange.add_body(name="hand", pos=[0, 0, _FLANGE[2]], quat=[np.cos(-np.pi / 8), 0, 0, np.sin(-np.pi / 8)])
    hand.gravcomp = 1
    _add_shape(mujoco, hand, "CYLINDER", [*shape.cap, 0], cap, mass=0.1, pos=[0, 0, 0.018])
    _add_shape(mujoco, hand, "BOX", list(shape.palm), _DARK, mass=0.3, pos=[0, 0, 0.054], collides=True)
    hand.add_site(name="tcp", pos=[0, 0, _TCP_HEIGHT], quat=[0, 1, 0, 0])
    for side, sign, colour in (("left", -1, left), ("right", 1, right)):
        finger = hand.add_body(name=f"finger_{side}", pos=[0, sign * shape.finger[1], _FINGER_HEIGHT])
        finger.gravcomp = 1
        finger.add_joint(
            name=f"finger_{side}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, sign, 0],
            range=[0, FINGER_STROKE],
            limited=True,
            damping=10,
            armature=0.1,
        )
        pad = _add_shape(mujoco, finger, "BOX", list(shape.finger), colour, mass=0.05, collides=True)
        pad.name = f"pad_{side}"
        pad.friction = [2.0, 0.05, 0.002]
        pad.condim = 4
        actuator = spec.add_actuator(name=f"grip_{side}", target=f"finger_{side}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=600, kv=20)
        actuator.forcerange = [-12, 12]
        actuator.forcelimited = True


def _add_shape(
    mujoco: Any,
    body: Any,
    kind: str,
    size: list[float],
    colour: list[float],
    *,
    mass: float,
    pos: list[float] | None = None,
    fromto: list[float] | None = None,
    collides: bool = False,
) -> Any:
    shape = body.add_geom(type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"), size=size, rgba=colour, mass=mass)
    shape.contype, shape.conaffinity = (HAND_COLLIDES if collides else 0), 0
    if pos is not None:
        shape.pos = pos
    if fromto is not None:
        shape.fromto = fromto
    return shape


def _offset(a: float, alpha: float, d: float) -> list[float]:
    return [a, -np.sin(alpha) * d, np.cos(alpha) * d]


class ArmKinematics:
    """Where the hand is for given joints, and which joints bring it to a pose."""

    def __init__(self, mujoco: Any, model: Any) -> None:
        self._mujoco, self._model, self._data = mujoco, model, mujoco.MjData(model)
        self._site = model.site("tcp").id
        self._positions = np.array([model.joint(f"joint{index}").qposadr[0] for index in range(len(_DH))])
        self._freedoms = np.array([model.joint(f"joint{index}").dofadr[0] for index in range(len(_DH))])
        self._jacobian = np.zeros((6, model.nv))
        self._low, self._high = np.array(_LIMITS).T

    def solve(self, position: Array, rotation: Array, *, start: Array, iterations: int = 30) -> Array:
        """Joint angles [7] that bring the hand to `position` [3] and `rotation` [3, 3], from the angles `start`.

        Damped least squares; in the null space the joints are drawn to HOME, so one pose has one configuration of the arm,
        whichever way it came.
        """
        joints = start.copy()
        for _ in range(iterations):
            at, turned, jacobian = self._forward(joints)
            error = np.concatenate([position - at, _rotation_vector(rotation @ turned.T)])
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 1e-6 * np.eye(6))
            change = inverse @ error
            change += (np.eye(len(joints)) - inverse @ jacobian) @ (HOME - joints)
            joints = np.clip(joints + np.clip(change, -0.3, 0.3), self._low, self._high)
            if np.abs(change).max() < 1e-5:
                break
        return joints

    def _forward(self, joints: Array) -> tuple[Array, Array, Array]:
        self._data.qpos[self._positions] = joints
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        self._mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        rotation = self._data.site_xmat[self._site].reshape(3, 3)
        return self._data.site_xpos[self._site], rotation, self._jacobian[:, self._freedoms]


def _rotation_vector(rotation: Array) -> Array:
    """Axis times angle of a rotation [3, 3] of less than half a turn."""
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(rotation) - 1) / 2
    return axis / 2 if sine < 1e-9 else axis / (2 * sine) * np.arctan2(sine, cosine)


def euler_to_matrix(angles: Array) -> Array:
    """Rotation [3, 3] of extrinsic xyz Euler angles [3] in radians: R_z R_y R_x."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def matrix_to_euler(rotation: Array) -> Array:
    """Extrinsic xyz Euler angles [3] in radians of a rotation [3, 3], pitch within a quarter turn."""
    pitch = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
    return np.array([np.arctan2(rotation[2, 1], rotation[2, 2]), pitch, np.arctan2(rotation[1, 0], rotation[0, 0])])
