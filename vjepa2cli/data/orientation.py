"""Which way up a decoded frame belongs: the display matrix of a container, rotation and mirroring by quarter turns."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# (a, b, c, d) of column' = a * column + c * row and row' = b * column + d * row, each -1, 0 or 1.
Signs = tuple[int, int, int, int]

UPRIGHT: Signs = (1, 0, 0, 1)
_BY_ANGLE: dict[int, Signs] = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}


def orientation(frame: Any, read_side_data: Callable[[Any], Iterable[Any]]) -> Signs:
    """Signs of a PyAV frame's display matrix; what is no quarter turn or mirror image leaves the frame as it is.

    Source: ISO/IEC 14496-12, 6.2.2, transformation matrices.
    """
    try:
        matrices = [np.frombuffer(bytes(item), "<i4") for item in read_side_data(frame) if item.type.name == "DISPLAYMATRIX"]
    except ValueError:
        # PyAV raises on side data that is newer than its enumeration; the angle is then all there is.
        return _BY_ANGLE.get(int(frame.rotation), UPRIGHT)
    if not matrices or len(matrices[0]) != 9:
        return UPRIGHT
    a, b, c, d = (int(np.sign(round(int(matrices[0][at]) / 65536))) for at in (0, 1, 3, 4))
    is_straight, is_turned = a and d and not b and not c, b and c and not a and not d
    return (a, b, c, d) if is_straight or is_turned else UPRIGHT


def described(signs: Signs) -> tuple[int, bool]:
    """The same as a rotation, in degrees clockwise, and whether the result is mirrored, left to right."""
    sample = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    wanted = turned(sample, signs)
    for mirrored in (False, True):
        for quarters in range(4):
            rotated = np.rot90(sample, -quarters)
            if np.array_equal(rotated[:, ::-1] if mirrored else rotated, wanted):
                return 90 * quarters, mirrored
    raise AssertionError(signs)


def turned(pixels: NDArray[np.uint8], signs: Signs) -> NDArray[np.uint8]:
    """Pixels [Y, X, 3] as they are to be seen, contiguous."""
    a, b, c, d = signs
    if b:
        pixels = pixels.transpose(1, 0, 2)
    if (c if b else a) < 0:
        pixels = pixels[:, ::-1]
    if (b if b else d) < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
