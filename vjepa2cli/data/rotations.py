"""Rotation matrices from whatever numbers a robot tells its orientation by."""

from collections.abc import Callable

import torch
from torch import Tensor

from vjepa2cli.data.poses import rotation_matrix
from vjepa2cli.settings.robot import Convention


def matrices(numbers: Tensor, convention: Convention) -> Tensor:
    """Rotation matrices [..., 3, 3] from numbers [..., n] of a convention; quaternions need not be of length one."""
    return _READERS[convention](numbers)


def _from_turned_axes(angles: Tensor) -> Tensor:
    """Angles about x, then the turned y, then the turned z: Rx Ry Rz."""
    zero = torch.zeros_like(angles[..., 0])
    about_x, about_y, about_z = (
        rotation_matrix(torch.stack(single, dim=-1))
        for single in ((angles[..., 0], zero, zero), (zero, angles[..., 1], zero), (zero, zero, angles[..., 2]))
    )
    return about_x @ about_y @ about_z


def _from_quaternion(numbers: Tensor) -> Tensor:
    """Numbers x, y, z, w."""
    x, y, z, w = torch.nn.functional.normalize(numbers, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _from_rotation_vector(vector: Tensor) -> Tensor:
    half = vector.norm(dim=-1, keepdim=True) / 2
    # sin(a) / a, which is 1 at 0.
    return _from_quaternion(torch.cat((vector * torch.sinc(half / torch.pi) / 2, half.cos()), dim=-1))


def _from_two_columns(numbers: Tensor) -> Tensor:
    """The first two columns, made orthogonal. Source: Zhou et al. 2019 (arXiv:1812.07035), section B."""
    first = torch.nn.functional.normalize(numbers[..., :3], dim=-1)
    second = numbers[..., 3:] - (first * numbers[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)


_READERS: dict[Convention, Callable[[Tensor], Tensor]] = {
    "euler_xyz": rotation_matrix,
    "euler_XYZ": _from_turned_axes,
    "quaternion_xyzw": _from_quaternion,
    "quaternion_wxyz": lambda numbers: _from_quaternion(numbers.roll(-1, dims=-1)),
    "rotation_vector": _from_rotation_vector,
    "rotation_6d": _from_two_columns,
}
