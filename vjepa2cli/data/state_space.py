"""What the numbers of a robot's state are, and what an action does to them: an end effector's seven, or the robot's own.

An action is the change of the state from one step to the next, so actions are as wide as states.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import pi
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.data.poses import pose_compose, pose_delta
from vjepa2cli.errors import InputError

_USUAL_SHARE = 0.95


@dataclass(frozen=True)
class StateSpace:
    """Names and units of the numbers, in order.

    kind: "end_effector" for the seven numbers of `data.poses`, "own" for numbers that simply add up.
    wraps: numbers in radians that come round at pi. limits: low and high end, where they are known.
    usual_change: how far each number goes in one step of the recordings, all but the largest twentieth of the steps.
    """

    kind: Literal["end_effector", "own"]
    names: tuple[str, ...]
    units: tuple[str, ...]
    wraps: tuple[bool, ...]
    limits: tuple[tuple[float, float] | None, ...]
    usual_change: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, tree: Mapping[str, Any] | None) -> "StateSpace":
        """Read what `to_tree` gave; None, of artefacts that do not say, is an end effector's."""
        if tree is None:
            return END_EFFECTOR
        limits = tuple(None if item is None else (item[0], item[1]) for item in tree["limits"])
        change = tree["usual_change"]
        return cls(
            tree["kind"],
            tuple(tree["names"]),
            tuple(tree["units"]),
            tuple(tree["wraps"]),
            limits,
            None if change is None else tuple(change),
        )

    def to_tree(self) -> dict[str, Any]:
        """The space as JSON types."""
        return asdict(self)

    @property
    def width(self) -> int:
        """How many numbers a state has."""
        return len(self.names)

    def describe(self) -> str:
        """Names with their units, for people."""
        return ", ".join(f"{name} ({unit})" for name, unit in zip(self.names, self.units, strict=True))

    def delta(self, states: Tensor) -> Tensor:
        """Actions between successive states: [..., T, S] -> [..., T-1, S]."""
        self._check(states, "states")
        if self.kind == "end_effector":
            return pose_delta(states)
        change = states[..., 1:, :] - states[..., :-1, :]
        return torch.where(self._wrapping(states), _wrapped(change), change)

    def compose(self, state: Tensor, action: Tensor) -> Tensor:
        """The state after an action: [..., S], [..., S] -> [..., S]; its own numbers are not held to their limits."""
        self._check(state, "state")
        self._check(action, "action")
        if self.kind == "end_effector":
            return pose_compose(state, action)
        after = state + action
        return torch.where(self._wrapping(state), _wrapped(after), after)

    def with_usual_change(self, actions: Tensor) -> "StateSpace":
        """The same space, with what recorded actions [N, S] usually stay within; rounded, so that it is the same anywhere."""
        usual = np.quantile(np.abs(actions.double().numpy()), _USUAL_SHARE, axis=0)
        return replace(self, usual_change=tuple(float(f"{value:.6g}") for value in usual.tolist()))

    def _wrapping(self, like: Tensor) -> Tensor:
        return torch.tensor(self.wraps, device=like.device)

    def _check(self, numbers: Tensor, name: str) -> None:
        if numbers.shape[-1:] != (self.width,):
            raise InputError(f"{name}: shape {list(numbers.shape)} does not end in {self.width}: {self.describe()}")


def _wrapped(angles: Tensor) -> Tensor:
    """Angles in [-pi, pi)."""
    return torch.remainder(angles + pi, 2 * pi) - pi


END_EFFECTOR = StateSpace(
    "end_effector",
    names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    units=("m", "m", "m", "rad", "rad", "rad", "share"),
    wraps=(False, False, False, True, True, True, False),
    limits=(None, None, None, None, None, None, (0.0, 1.0)),
)
"""x, y, z in the base frame, extrinsic xyz Euler angles, and the gripper from 0, open, to 1, closed."""
