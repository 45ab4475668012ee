"""Episodes that are arrays under names: one group of an HDF5 file or one .npz file, told by the keys of a robot's description."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.episode import Footage, Picture, Recording, refuse_missing_cameras
from vjepa2cli.settings.robot import RobotConfig

ReadArray = Callable[[str], Any]
"""Gives the array of a name, or a part of it by slices."""


def assemble(
    shapes: Mapping[str, tuple[int, ...]],
    read: ReadArray,
    robot: RobotConfig,
    *,
    path: Path,
    where: str,
    pictures: Callable[[str], Iterator[Picture]],
) -> Recording:
    """Make an episode of arrays, whose shapes are known by name; one batch axis of length one in front is taken away.

    Raises RecordingError for a key that is not there, with those that are, and for arrays of unequal length. Where there is one
    state more than commands, as after the last of them, that last command is repeated, and said.
    """
    refuse_missing_cameras(robot, [name for name, shape in shapes.items() if len(shape) >= 4], where=where)
    states = read_rows(shapes, read, robot.state.keys, where=where)
    actions = None if robot.action is None else read_rows(shapes, read, robot.action.keys, where=where)
    notes = []
    if actions is not None and len(actions) == len(states) - 1:
        actions = np.concatenate([actions, actions[-1:]])
        notes.append(f"{len(states)} states for {len(actions) - 1} commands; the last command stands for one more")
    if actions is not None and len(actions) != len(states):
        raise RecordingError(f"{where}: {len(actions)} commands for {len(states)} states; cut them to the same rows")
    cameras = {
        name: Footage(path, pictures=partial(pictures, camera.key))
        for name, camera in robot.cameras.items()
        if camera.key in shapes
    }
    text = robot.instruction
    return Recording(
        states=states,
        actions=actions,
        cameras=cameras,
        rate=None,
        robot=None,
        instruction=_text(read(text)) if text is not None and text in shapes else "",
        files=(path,),
        notes=tuple(notes),
    )


def numbers_among(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Those arrays that could be rows of numbers, [T, n] or [1, T, n], with numbered names."""
    rows = {name: shape for name, shape in shapes.items() if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)}
    return {name: [f"number_{index}" for index in range(shape[-1])] for name, shape in rows.items()}


def pictures_of(array: Any) -> Iterator[Picture]:
    """Pictures one at a time: pixels [T, Y, X, 3] or [T, 3, Y, X], or coded images, a row of bytes [T, N] or a string each."""
    batched = len(array.shape) == 5 and array.shape[0] == 1
    for index in range(array.shape[1] if batched else array.shape[0]):
        item = np.asarray(array[0, index] if batched else array[index])
        if item.dtype == object or item.dtype.kind in "SV":
            item = np.frombuffer(bytes(item.item()), np.uint8)
        if item.ndim == 1:
            yield item.astype(np.uint8).tobytes()
        elif item.ndim == 3 and item.shape[0] == 3 and item.shape[2] != 3:
            yield np.ascontiguousarray(item.transpose(1, 2, 0))
        else:
            yield item


def read_rows(shapes: Mapping[str, tuple[int, ...]], read: ReadArray, keys: Sequence[str], *, where: str) -> NDArray[Any]:
    """Rows [T, n] of several arrays, joined; raises RecordingError where they are not rows of numbers of one length."""
    parts = []
    for key in keys:
        if key not in shapes:
            there = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
            raise RecordingError(f"{where}: no array {key} (there: {there}); mend the keys in robot.yaml")
        values = np.asarray(read(key))
        if values.ndim == 3 and values.shape[0] == 1:
            values = values[0]
        if values.ndim > 2 or values.ndim == 0 or values.dtype.kind not in "fiub":
            raise RecordingError(f"{where}: {key} is {values.dtype} {list(values.shape)}, not rows of numbers [T, n]")
        parts.append(values.reshape(len(values), -1))
    if len({len(part) for part in parts}) > 1:
        raise RecordingError(f"{where}: {', '.join(f'{len(p)} rows of {k}' for k, p in zip(keys, parts, strict=True))}")
    return np.concatenate(parts, axis=1)


def _text(value: Any) -> str:
    item = np.asarray(value).ravel()[:1].tolist()
    if not item:
        return ""
    return item[0].decode("utf-8", errors="replace") if isinstance(item[0], bytes) else str(item[0])
