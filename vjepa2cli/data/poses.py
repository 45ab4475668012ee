"""End-effector poses: the difference of two, and what a difference makes of one; vectorised and differentiable.

A state is [x, y, z, roll, pitch, yaw, gripper]: metres and radians in the robot's base frame, angles extrinsic xyz Euler, the
gripper from 0 (open) to 1 (closed). An action is the difference of two states, also in the base frame.

Source: notebooks/utils/mpc_utils.py of facebookresearch/vjepa2; arXiv:2506.09985, section 3.
"""

import torch
from torch import Tensor

from vjepa2cli.errors import InputError


def pose_delta(states: Tensor) -> Tensor:
    """Actions between successive states: [..., T, 7] -> [..., T-1, 7]; rotation R(t+1) R(t)^T as extrinsic xyz Euler angles."""
    _check(states, "states")
    before, after = states[..., :-1, :], states[..., 1:, :]
    turn = rotation_matrix(after[..., 3:6]) @ rotation_matrix(before[..., 3:6]).transpose(-1, -2)
    return torch.cat(
        (after[..., :3] - before[..., :3], euler_angles(turn), after[..., 6:] - before[..., 6:]),
        dim=-1,
    )


def pose_compose(state: Tensor, delta: Tensor) -> Tensor:
    """The state after an action: [..., 7], [..., 7] -> [..., 7]; the gripper is clipped to [0, 1]."""
    _check(state, "state")
    _check(delta, "delta")
    rotation = rotation_matrix(delta[..., 3:6]) @ rotation_matrix(state[..., 3:6])
    return torch.cat(
        (state[..., :3] + delta[..., :3], euler_angles(rotation), (state[..., 6:] + delta[..., 6:]).clamp(0, 1)),
        dim=-1,
    )


def rotation_matrix(angles: Tensor) -> Tensor:
    """Extrinsic xyz Euler angles [..., 3] in radians -> rotation matrices Rz Ry Rx [..., 3, 3]."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def euler_angles(rotation: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] -> extrinsic xyz Euler angles [..., 3] in radians, pitch in [-pi/2, pi/2]."""
    roll = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    # atan2 keeps the precision near +-90 degrees that asin of a rounded sine loses.
    pitch = torch.atan2(-rotation[..., 2, 0], torch.hypot(rotation[..., 2, 1], rotation[..., 2, 2]))
    yaw = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.stack((roll, pitch, yaw), dim=-1)


def _check(poses: Tensor, name: str) -> None:
    if poses.shape[-1:] != (7,):
        raise InputError(f"{name}: shape {list(poses.shape)} does not end in 7: x, y, z, roll, pitch, yaw, gripper")
