"""What recordings of a robot are worth, told before hours are spent on them: alignment, coverage, idleness, framing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.alignment import Lag, find_lag
from vjepa2cli.data.robot_numbers import command_numbers
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.ingestion.framing import check_framing
from vjepa2cli.settings.robot import RobotConfig

VERSION = 1
Numbers = NDArray[np.float64]

# Slower than this a number counts as still, in its unit a second.
_STILL = {"m": 0.01, "rad": 0.05, "share": 0.05}
_STILL_SHARE = 0.02
_MAX_LAG_SECONDS = 1.0
_MOST_EPISODES = 1000
# Below this correlation commands and motion, or motion and pictures, have too little in common to tell a lag.
_ALIKE = 0.3
_BEYOND_CHANCE = 0.1
_OTHERS = 4
# Numbers that follow their commands nearly as well as the best one does tell the lead.
_NEARLY = 0.75
_HARDLY_MOVES = 0.98
_ONE_WAY = 0.9
_MOSTLY_IDLE = 0.5
_FEW_STEPS = 2000
_NAMED = 6
_QUANTILES = (0.05, 0.5, 0.95)
_BINS = 21


def check_robot(store: VideoStore, robot: RobotConfig | None) -> dict[str, Any] | None:
    """Findings on the robot recordings of a store, as JSON types, or None where it has none; `warnings` says what is amiss.

    Of the cameras of an episode one stands for its numbers; every camera is looked at by itself. At most a thousand episodes are
    read, evenly over all: `episodes` and `steps` count these.
    """
    entries = [entry for entry in store.entries if entry.has_states]
    if not entries:
        return None
    space = StateSpace.parse(store.state_space)
    first = _spread(list({entry.episode: entry for entry in reversed(entries)}.values())[::-1])
    states = [_states(store, entry) for entry in first]
    changes = [space.delta(torch.from_numpy(rows)).numpy() for rows in states]
    rate = float(np.median([entry.fps for entry in first]))
    coverage = check_coverage(space, states, changes, rate=rate)
    alignment = _check_alignment(store, first, space, robot, changes, rate=rate)
    speeds = {entry.episode: _speed(rows) for entry, rows in zip(first, changes, strict=True)}
    framing = check_framing(store, [entry for entry in entries if entry.episode in speeds], speeds)
    found = {
        "version": VERSION,
        "episodes": len(first),
        "steps": sum(map(len, changes)),
        "rate": rate,
        "minutes": round(sum(len(rows) for rows in states) / rate / 60, 2),
        "coverage": coverage,
        "alignment": alignment,
        "cameras": framing,
    }
    return found | {"warnings": _warnings(found)}


def _spread(entries: Sequence[VideoEntry]) -> list[VideoEntry]:
    """At most so many that looking at them takes seconds, evenly over all."""
    places = np.linspace(0, len(entries) - 1, min(len(entries), _MOST_EPISODES)).round().astype(int)
    return [entries[place] for place in np.unique(places)]


def _states(store: VideoStore, entry: VideoEntry) -> Numbers:
    rows = store.states(entry.key)
    assert rows is not None
    return rows.astype(np.float64)


def _speed(changes: Numbers) -> Numbers:
    """How much moves in each step, every number in its own usual size."""
    usual = np.abs(changes).mean(0)
    return np.asarray((np.abs(changes) / np.where(usual > 0, usual, np.inf)).mean(1))


def check_coverage(space: StateSpace, states: Sequence[Numbers], changes: Sequence[Numbers], *, rate: float) -> dict[str, Any]:
    """How far, how often and which way each number goes from a row to the next."""
    rows, steps = np.concatenate(states), np.concatenate(changes)
    still = np.stack([np.abs(steps[:, axis]) < _threshold(space.units[axis], rows[:, axis], rate) for axis in range(space.width)])
    axes = []
    for axis, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        moving = steps[~still[axis], axis]
        reach = max(float(np.quantile(np.abs(steps[:, axis]), 0.99)), 1e-9)
        counts, _ = np.histogram(np.clip(steps[:, axis], -reach, reach), bins=_BINS, range=(-reach, reach))
        axes.append(
            {
                "name": name,
                "unit": unit,
                "idle_share": _rounded(still[axis].mean()),
                "forward_share": _rounded((moving > 0).mean()) if len(moving) else None,
                "step_quantiles": [_rounded(value) for value in np.quantile(steps[:, axis], _QUANTILES)],
                "range": [_rounded(value) for value in np.quantile(rows[:, axis], (0.01, 0.99))],
                "histogram": {"reach": _rounded(reach), "counts": counts.tolist()},
            }
        )
    return {"idle_share": _rounded(still.all(0).mean()), "axes": axes}


def _threshold(unit: str, column: Numbers, rate: float) -> float:
    return _STILL[unit] / rate if unit in _STILL else _STILL_SHARE * float(np.ptp(column)) / rate


def _check_alignment(
    store: VideoStore,
    entries: Sequence[VideoEntry],
    space: StateSpace,
    robot: RobotConfig | None,
    changes: Sequence[Numbers],
    *,
    rate: float,
) -> dict[str, Any] | None:
    """By how much commands come before the motion that they ask for, each and all told; None where there are no commands."""
    recorded = [store.actions(entry.key) for entry in entries]
    if any(rows is None for rows in recorded) or not recorded:
        return None
    commands = [rows.astype(np.float64) for rows in recorded if rows is not None]
    columns = _columns(space, robot)
    max_lag = max(3, math.ceil(_MAX_LAG_SECONDS * rate))
    axes = []
    for axis, (column, meaning) in sorted(columns.items()):
        asked = [_asked(space, rows, column, axis, meaning) for rows in commands]
        moved = [rows[:, axis] for rows in changes]
        # Smooth records are alike by chance: how much so, the motion of other episodes tells.
        others = [moved[turn:] + moved[:turn] for turn in range(1, min(len(moved), _OTHERS + 1))]
        chance = [find_lag(list(zip(asked, other, strict=True)), max_lag=max_lag).correlation for other in others]
        least = max([_ALIKE, *(value + _BEYOND_CHANCE for value in chance)])
        lag = find_lag(list(zip(asked, moved, strict=True)), max_lag=max_lag, least=least)
        # A change that is asked for at row t is there at row t + 1; a target has its change between rows as well.
        axes.append(_lead(space.names[axis], lag, rate, rows_later=0 if meaning == "absolute" else 1) | {"meaning": meaning})
    best = max((axis["correlation"] for axis in axes if axis["lead_s"] is not None), default=0.0)
    told = [axis["lead_s"] for axis in axes if axis["lead_s"] is not None and axis["correlation"] >= _NEARLY * best]
    if not told:
        return {"lead_s": None, "lead_rows": None, "axes": axes}
    lead = float(np.median(told))
    return {"lead_s": _rounded(lead), "lead_rows": _rounded(lead * rate), "axes": axes}


def _columns(space: StateSpace, robot: RobotConfig | None) -> dict[int, tuple[int, str]]:
    """For each number of a state that is commanded, the column of its command and what that means."""
    if robot is None or robot.action is None or robot.action.numbers is None:
        return {axis: (axis, "absolute") for axis in range(space.width)}
    names = list(space.names)
    if robot.end_effector is not None:
        gripper = robot.end_effector.gripper
        rotation = robot.end_effector.rotation if len(robot.end_effector.rotation) == 3 else ("", "", "")
        names = [*robot.end_effector.position, *rotation, gripper.name if gripper is not None else ""]
    return {
        names.index(number.name): (column, number.meaning)
        for column, number in enumerate(command_numbers(robot))
        if number.name in names
    }


def _asked(space: StateSpace, commands: Numbers, column: int, axis: int, meaning: str) -> Numbers:
    """The change that commands ask for, a row each."""
    if meaning != "absolute":
        return commands[:-1, column]
    if commands.shape[1] == space.width:
        asked: Numbers = space.delta(torch.from_numpy(commands)).numpy()[:, axis]
        return asked
    return np.diff(commands[:, column])


def _lead(name: str, lag: Lag, rate: float, *, rows_later: int) -> dict[str, Any]:
    rows = None if lag.rows is None else lag.rows + rows_later
    return {
        "name": name,
        "lead_rows": None if rows is None else _rounded(rows),
        "lead_s": None if rows is None else _rounded(rows / rate),
        "correlation": _rounded(lag.correlation),
        "curve": [_rounded(value) for value in lag.curve],
    }


def _warnings(found: Mapping[str, Any]) -> list[str]:
    said = []
    if found["steps"] < _FEW_STEPS:
        said.append(
            f"only {found['steps']} steps, {found['minutes']:g} minutes: a world model needs hours, this may do for a trial"
        )
    coverage = found["coverage"]
    if coverage["idle_share"] > _MOSTLY_IDLE:
        said.append(f"nothing moves in {coverage['idle_share']:.0%} of the steps; cut the waiting out, or choose a lower fps")
    stuck = [axis["name"] for axis in coverage["axes"] if axis["idle_share"] > _HARDLY_MOVES]
    if stuck:
        said.append(f"{_listed(stuck)}: moves in hardly a step, so what it does to the picture cannot be learnt")
    one_way = [
        axis["name"]
        for axis in coverage["axes"]
        if axis["name"] not in stuck and max(axis["forward_share"], 1 - axis["forward_share"]) > _ONE_WAY
    ]
    if one_way:
        said.append(f"{_listed(one_way)}: moves one way only; record the way back as well")
    return said + _alignment_warnings(found["alignment"]) + [text for camera in found["cameras"] for text in camera["warnings"]]


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _alignment_warnings(alignment: Mapping[str, Any] | None) -> list[str]:
    if alignment is None:
        return []
    if alignment["lead_rows"] is None:
        best = max((axis["correlation"] for axis in alignment["axes"]), default=0.0)
        return [
            f"the commands do not explain the motion at any lag (correlation at most {best:.2f}); check the action's keys, its "
            "meaning and the order of its numbers"
        ]
    absolute = all(axis["meaning"] == "absolute" for axis in alignment["axes"])
    lead, seconds = alignment["lead_rows"], alignment["lead_s"]
    if lead < -0.25:
        return [
            f"the commands come {-lead:.1f} rows ({-seconds:.2f} s) after the motion; rows of states or of actions are shifted"
        ]
    if absolute and lead < 0.25 and _least_correlation(alignment) > 0.99:
        return ["the commands are the states themselves: they were measured, not given"]
    if seconds > _MAX_LAG_SECONDS / 2:
        return [f"the commands lead the motion by {seconds:.2f} s; a slow controller, or rows of states that are shifted"]
    return []


def _least_correlation(alignment: Mapping[str, Any]) -> float:
    told = [float(axis["correlation"]) for axis in alignment["axes"] if axis["lead_rows"] is not None]
    return min(told)


def _rounded(value: Any) -> float:
    """Rounded so that it is the same on every machine."""
    return float(f"{float(value):.4g}")
