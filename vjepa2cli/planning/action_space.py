"""What a planner may do: the box of the actions, the first distribution in it, and which numbers stay where they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.cem import CemSettings
from vjepa2cli.settings import CemConfig

GRIPPER = "gripper"


@dataclass(frozen=True)
class ActionSpace:
    """`mean` and `std` [H, A] to begin with, `low` and `high` [H, A]; a number with std 0 stays at its mean."""

    names: tuple[str, ...]
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    settings: CemSettings

    def index(self, name: str, *, key: str) -> int:
        """The place of an axis; raises PlanningError where there is none of this name."""
        return _index(self.names, name, key)


def action_space(config: CemConfig, space: StateSpace) -> ActionSpace:
    """The space that a config makes of a robot's numbers.

    Without further settings an end effector moves and keeps its rotation, as in the released planner. Raises PlanningError for
    axes that the robot does not have, and for numbers of its own of which nobody knows how far they go in one step.
    """
    limits, spread = _released(config) if space.kind == "end_effector" else _own(config, space)
    low, high = [-limit for limit in limits], list(limits)
    for name, (least, most) in config.bounds.items():
        place = _index(space.names, name, "bounds")
        low[place], high[place], spread[place] = least, most, (most - least) / 2
    for name, value in config.pinned.items():
        place = _index(space.names, name, "pinned")
        low[place], high[place], spread[place] = value, value, 0.0
    box = torch.tensor([low, high, spread]).unsqueeze(1).repeat(1, config.horizon, 1)  # [3, H, A]
    dead_zone = [config.gripper_dead_zone if name == GRIPPER and name not in config.pinned else 0.0 for name in space.names]
    if config.gripper_schedule:
        place = _index(space.names, GRIPPER, "gripper_schedule")
        wanted = torch.tensor(config.gripper_schedule)[torch.arange(config.horizon).clamp(max=len(config.gripper_schedule) - 1)]
        box[:2, :, place], box[2, :, place], dead_zone[place] = wanted, 0.0, 0.0
    return ActionSpace(
        names=space.names,
        mean=(box[0] + box[1]) / 2,
        std=box[2],
        low=box[0],
        high=box[1],
        settings=_settings(config, space.names, dead_zone),
    )


def _released(config: CemConfig) -> tuple[list[float], list[float]]:
    """Half widths and first standard deviations of an end effector. Source: notebooks/utils/mpc_utils.py of vjepa2."""
    planned = float(config.plan_gripper)
    limits = [config.max_translation] * 3 + [config.max_rotation] * 3 + [config.gripper_bound * planned]
    return limits, [config.initial_std or config.max_translation] * 3 + [config.max_rotation] * 3 + [planned]


def _own(config: CemConfig, space: StateSpace) -> tuple[list[float], list[float]]:
    if space.usual_change is None:
        raise PlanningError("model: its config.json names no usual_change of its robot's numbers; run 'vjepa2 precompute' again")
    limits = [config.max_change * change for change in space.usual_change]
    return limits, list(limits)


def _settings(config: CemConfig, names: tuple[str, ...], dead_zone: list[float]) -> CemSettings:
    def smoothing(usual: float, gripper: float) -> tuple[float, ...]:
        return tuple(gripper if name == GRIPPER else usual for name in names)

    return CemSettings(
        samples=config.samples,
        iterations=config.iterations,
        elites=config.elites,
        mean_smoothing=smoothing(config.mean_smoothing, config.gripper_mean_smoothing),
        std_smoothing=smoothing(config.std_smoothing, config.gripper_std_smoothing),
        dead_zone=tuple(dead_zone),
        snaps=tuple(config.gripper_snaps and name == GRIPPER for name in names),
        solver=config.solver,
        temperature=config.temperature,
        mean_among_samples=config.mean_among_samples,
        std_floor=config.std_floor,
        uninformative_level=config.uninformative_level,
        returns=config.returns,
        noise_colour=config.noise_colour,
        agreement=config.agreement,
    )


def _index(names: tuple[str, ...], name: str, key: str) -> int:
    if name not in names:
        raise PlanningError(f"cem.{key}: this robot has no axis {name!r}; its axes are {', '.join(names)}")
    return names.index(name)
