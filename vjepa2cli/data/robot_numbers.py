"""From the numbers that a robot records to the state that a world model reads, in metres and radians."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.data.poses import euler_angles
from vjepa2cli.data.rotations import matrices
from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.errors import RecordingError
from vjepa2cli.settings.robot import EndEffectorConfig, Meaning, NumbersConfig, RobotConfig

Rows = NDArray[Any]

_SI: dict[str, tuple[str, float]] = {
    "cm": ("m", 0.01),
    "mm": ("m", 0.001),
    "deg": ("rad", math.pi / 180),
    "deg/s": ("rad/s", math.pi / 180),
}
# Joint angles and limits are rounded where they are written down.
_SLACK = 0.02
# Nothing but degrees turns this far.
_MANY_TURNS = 4 * math.pi


@dataclass(frozen=True)
class Number:
    """One number of a row: its unit is metres, radians or what else the recording has; `limits` are in that unit."""

    name: str
    unit: str
    scale: float
    wraps: bool
    limits: tuple[float, float] | None
    meaning: Meaning = "absolute"


def state_numbers(robot: RobotConfig) -> tuple[Number, ...]:
    """What the numbers of a recorded state are, in order."""
    return tuple(number for group in robot.state.numbers for number in _numbers(group, "absolute"))


def command_numbers(robot: RobotConfig) -> tuple[Number, ...]:
    """What the numbers of a recorded command are, in order, which are the state's unless it has its own."""
    if robot.action is None:
        return ()
    if robot.action.numbers is None:
        return state_numbers(robot)
    return tuple(number for group in robot.action.numbers for number in _numbers(group, group.meaning))


def state_space(robot: RobotConfig | None) -> StateSpace:
    """What a world model of the robot reads; without a description an end effector's seven numbers."""
    if robot is None or robot.end_effector is not None:
        return END_EFFECTOR
    numbers = state_numbers(robot)
    chosen = [numbers[place] for place in _own_places(robot)]
    return StateSpace(
        "own",
        names=tuple(number.name for number in chosen),
        units=tuple(number.unit for number in chosen),
        wraps=tuple(number.wraps for number in chosen),
        limits=tuple(number.limits for number in chosen),
    )


def to_states(robot: RobotConfig, rows: Rows, *, where: str) -> NDArray[np.float32]:
    """States [T, S] of recorded rows [T, n]; raises RecordingError where the rows are not those of the robot."""
    numbers = state_numbers(robot)
    scaled = _scaled(rows, numbers, where=f"{where}: {', '.join(robot.state.keys)}")
    _refuse_other_units(scaled, numbers, where=where)
    return _chosen(robot, scaled).astype(np.float32)


def to_commands(robot: RobotConfig, rows: Rows, *, where: str) -> NDArray[np.float32]:
    """Commands [T, A] of recorded rows: targets of the state's numbers as states are, else `command_numbers` as they come."""
    assert robot.action is not None
    scaled = _scaled(rows, command_numbers(robot), where=f"{where}: {', '.join(robot.action.keys)}")
    return (_chosen(robot, scaled) if robot.action.numbers is None else scaled).astype(np.float32)


def remarks(robot: RobotConfig, rows: Rows) -> list[str]:
    """What is to be said of recorded states [T, n]: limits that they leave, angles that come round or seem to be degrees."""
    numbers = state_numbers(robot)
    scaled = np.asarray(rows, np.float64) * [number.scale for number in numbers]
    rotation = () if robot.end_effector is None else robot.end_effector.rotation
    said = []
    for column, number in zip(scaled.T, numbers, strict=True):
        if (outside := _outside(column, number)) is not None:
            said.append(outside)
        if number.unit == "rad" and number.limits is None and np.abs(column).max() > _MANY_TURNS:
            said.append(f"{number.name} reaches {_farthest(column):g} rad; if these are degrees, write 'unit: deg'")
        turns = np.flatnonzero(np.abs(np.diff(column)) > math.pi)
        if number.unit != "rad" or not len(turns):
            continue
        if number.wraps or number.name in rotation:
            said.append(f"{number.name} comes round at pi in {len(turns)} steps; changes are taken the short way")
        else:
            said.append(
                f"{number.name} jumps by {column[turns[0] + 1] - column[turns[0]]:.2f} rad after row {turns[0]}; "
                "if it comes round at pi, add 'wraps: true'"
            )
    return said


def _numbers(group: NumbersConfig, meaning: Meaning) -> list[Number]:
    unit, scale = _SI.get(group.unit, (group.unit, 1.0))
    limits = None if group.limits is None else (group.limits[0] * scale, group.limits[1] * scale)
    return [Number(name, unit, scale, group.wraps, limits, meaning) for name in group.names]


def _own_places(robot: RobotConfig) -> list[int]:
    names = [number.name for number in state_numbers(robot)]
    chosen: Sequence[str] = names if robot.own_numbers == "all" or robot.own_numbers is None else robot.own_numbers
    return [names.index(name) for name in chosen]


def _scaled(rows: Rows, numbers: Sequence[Number], *, where: str) -> NDArray[np.float64]:
    if rows.ndim != 2 or rows.shape[1] != len(numbers):
        raise RecordingError(
            f"{where}: rows {list(rows.shape)}, but robot.yaml says what {len(numbers)} numbers are; describe each of them, "
            "or name other keys"
        )
    scaled = np.asarray(rows, np.float64) * [number.scale for number in numbers]
    finite = np.isfinite(scaled).all(axis=1)
    if not finite.all():
        raise RecordingError(f"{where}: row {int(np.argmin(finite))} is not finite; cut or drop it")
    return scaled


def _refuse_other_units(scaled: NDArray[np.float64], numbers: Sequence[Number], *, where: str) -> None:
    """Where half of the rows lie further out than the limits are wide, one of the two is in another unit."""
    for column, number in zip(scaled.T, numbers, strict=True):
        if number.limits is not None:
            low, high = number.limits
            middle = float(np.median(column))
            if not 2 * low - high <= middle <= 2 * high - low:
                raise RecordingError(
                    f"{where}: {number.name} is {middle:g} {number.unit} in the middle of its rows, far from its limits {low:g} "
                    f"to {high:g}; mend its unit or its limits in robot.yaml"
                )


def _outside(column: NDArray[np.float64], number: Number) -> str | None:
    if number.limits is None:
        return None
    low, high = number.limits
    slack = _SLACK * (high - low)
    count = int(((column < low - slack) | (column > high + slack)).sum())
    if not count:
        return None
    worst = column.min() if low - column.min() > column.max() - high else column.max()
    return f"{number.name} leaves its limits {low:g} to {high:g} {number.unit} in {count} of {len(column)} rows, to {worst:.4g}"


def _farthest(column: NDArray[np.float64]) -> float:
    return float(column[np.abs(column).argmax()])


def _chosen(robot: RobotConfig, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a world model reads of all numbers."""
    if robot.end_effector is None:
        return scaled[:, _own_places(robot)]
    return _poses(robot, robot.end_effector, scaled)


def _poses(robot: RobotConfig, chosen: EndEffectorConfig, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """The seven numbers of `data.poses` from rows in metres and radians."""
    names = [number.name for number in state_numbers(robot)]
    convention = next(group.convention for group in robot.state.numbers if group.names == chosen.rotation)
    numbers = torch.from_numpy(scaled[:, [names.index(name) for name in chosen.rotation]])
    angles = numbers if convention == "euler_xyz" else euler_angles(matrices(numbers, convention))
    gripper = np.zeros(len(scaled))
    if chosen.gripper is not None:
        value, ends = scaled[:, names.index(chosen.gripper.name)], chosen.gripper
        scale = state_numbers(robot)[names.index(ends.name)].scale
        gripper = np.clip((value - ends.open * scale) / ((ends.closed - ends.open) * scale), 0, 1)
    position = scaled[:, [names.index(name) for name in chosen.position]]
    return np.concatenate([position, angles.numpy(), gripper[:, None]], axis=1)
