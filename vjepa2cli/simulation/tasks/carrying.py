"""Reach with object, and pick and place: an object that is held has to come to where it is in the goal image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import GraspConfig, PickAndPlaceConfig, ReachWithObjectConfig, SceneConfig
from vjepa2cli.simulation.environment import Measure, Observation, Policy, View
from vjepa2cli.simulation.experts import ALIGNED, APPROACH, LOW, NEAR, Follow, Stage, down, grip
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks.grasp import choose_graspable, grasp_stages, sample_open_hand
from vjepa2cli.simulation.tasks.layout import (
    GOAL_MOMENT,
    SHOWING_STEP,
    Layout,
    as_policy,
    describe,
    direction,
    first_feasible,
    in_workspace,
    layouts,
    show,
)

Array = NDArray[np.float64]

_REACH_STREAM, _PLACE_STREAM = 29, 31
_PLACES = 200
_OVER = 0.12
"""Height of the hand over the place where an object is put down, and while it goes there."""
_HIGHEST_REST = 0.012
_APART = 0.10
_MARGIN = 0.02


@dataclass(frozen=True)
class _Carried:
    """What both kinds of episode know: `wanted` [3] is where the object is in the last goal image.

    `fastest`: metres an axis in one action, beyond which what is held may swing out of the fingers.
    """

    environment: Tabletop
    layout: Layout
    start: Array
    wanted: Array
    tolerance: float
    goals: tuple[View, ...]
    stages: tuple[Stage, ...]
    fastest: float = np.inf

    def _remaining(self) -> float:
        return float(np.linalg.norm(self.environment.situation().objects[self.layout.target] - self.wanted))

    def expert(self, max_translation: float) -> Policy:
        """The script that showed the goal."""
        reach = min(max_translation, self.fastest)
        return as_policy(self.environment, Follow(iter(self.stages), np.random.default_rng(0), max_translation=reach))

    def describe(self) -> dict[str, Any]:
        """Where the hand is at first, and where the object has to be."""
        return describe(self.layout, start=self.start[:3], goal=self.wanted)


@dataclass(frozen=True)
class ReachWithObjectEpisode(_Carried):
    """The hand starts with the object at the position `start` [3]."""

    def begin(self) -> Observation:
        """The object held, at the start."""
        pick_up(self.environment, self.layout, self.start, moment=0)
        return self.environment.observe()

    def measure(self) -> Measure:
        """How far the object is from where it has to be; it must be held."""
        remaining = self._remaining()
        return Measure(self.environment.situation().held == self.layout.target and remaining <= self.tolerance, remaining)


@dataclass(frozen=True)
class PickAndPlaceEpisode(_Carried):
    """The hand starts open at the pose `start` [7]."""

    def begin(self) -> Observation:
        """The hand open, at the start."""
        return self.environment.reset(seed=self.layout.scene_seed, state=self.start)

    def measure(self) -> Measure:
        """How far the object is from where it has to be; it must stand there and be let go."""
        now, remaining = self.environment.situation(), self._remaining()
        stands = now.objects[self.layout.target, 2] < self.layout.item.size + _HIGHEST_REST
        return Measure(bool(now.held is None and stands and remaining <= self.tolerance), remaining)


class ReachWithObject:
    """Bring a held object to where it is in the goal image."""

    plans_gripper = False
    unit = "m"

    def __init__(self, environment: Tabletop, config: ReachWithObjectConfig, scene: SceneConfig) -> None:
        """See the config."""
        self._environment, self._config, self._scene = environment, config, scene

    def prepare(self, seed: int) -> ReachWithObjectEpisode:
        """The episode of `seed`, of which a script has shown that it can be done."""
        found = (self._lay_out(layout) for layout in layouts(seed, _REACH_STREAM, self._scene, choose_graspable))
        return first_feasible(seed, found, "reach_with_object")

    def _lay_out(self, layout: Layout) -> ReachWithObjectEpisode | None:
        ends = _sample_ends(layout, self._config.distance)
        if ends is None:
            return None
        start, goal = ends
        stages = (Stage(goal, layout.yaw, 1.0, ALIGNED),)
        environment = self._environment
        if not (pick_up(environment, layout, start, moment=GOAL_MOMENT) and show(environment, stages)):
            return None
        views = (View(environment.observe().frame, self._config.actions),)
        wanted = environment.situation().objects[layout.target]
        episode = ReachWithObjectEpisode(environment, layout, start, wanted, self._config.tolerance, views, stages, SHOWING_STEP)
        return episode if episode.measure().succeeded else None


class PickAndPlace:
    """Pick an object up and put it down elsewhere, by way of sub-goals."""

    plans_gripper = True
    unit = "m"

    def __init__(self, environment: Tabletop, config: PickAndPlaceConfig, start: GraspConfig, scene: SceneConfig) -> None:
        """`start` says how far from the object the hand is at first."""
        self._environment, self._config, self._start, self._scene = environment, config, start, scene

    def prepare(self, seed: int) -> PickAndPlaceEpisode:
        """The episode of `seed`, of which a script has shown that it can be done."""
        found = (self._lay_out(layout) for layout in layouts(seed, _PLACE_STREAM, self._scene, choose_graspable))
        return first_feasible(seed, found, "pick_and_place")

    def _lay_out(self, layout: Layout) -> PickAndPlaceEpisode | None:
        start, place = sample_open_hand(layout, self._start.distance), _sample_place(layout, self._config.distance)
        if start is None or place is None:
            return None
        environment = self._environment
        environment.reset(seed=layout.scene_seed, state=start, moment=GOAL_MOMENT)
        parts = (grasp_stages(layout, start), _carry_stages(layout, place), _put_down_stages(layout, place))
        views = []
        for stages, actions in zip(parts, self._config.actions, strict=True):
            show(environment, stages)
            views.append(View(environment.observe().frame, actions))
        wanted = environment.situation().objects[layout.target]
        whole = tuple(stage for stages in parts for stage in stages)
        episode = PickAndPlaceEpisode(environment, layout, start, wanted, self._config.tolerance, tuple(views), whole)
        return episode if episode.measure().succeeded and np.linalg.norm(wanted[:2] - place) < NEAR else None


def pick_up(environment: Tabletop, layout: Layout, to: Array, *, moment: int) -> bool:
    """Begin the episode with the object in the hand at the position `to` [3]; whether it is held."""
    over = np.array([*layout.at, APPROACH, 0.0, 0.0, layout.yaw, 0.0])
    environment.reset(seed=layout.scene_seed, state=over, moment=moment)
    high = max(float(to[2]), _OVER)
    stages = [
        down(layout.at, layout.yaw, gripper=0.0),
        grip(layout.at, layout.yaw, gripper=1.0),
        Stage(np.array([*layout.at, high]), layout.yaw, 1.0, NEAR),
        Stage(np.array([*to[:2], high]), layout.yaw, 1.0, NEAR),
        Stage(to, layout.yaw, 1.0, ALIGNED),
    ]
    return show(environment, stages) and environment.situation().held == layout.target


def _sample_ends(layout: Layout, distance: tuple[float, float]) -> tuple[Array, Array] | None:
    """Two positions [3] of the hand that holds the object, so far apart and away from other objects, if there are any."""
    low = np.array([*WORKSPACE_LOW[:2], LOW + _MARGIN])
    for _ in range(_PLACES):
        start = layout.rng.uniform(low, WORKSPACE_HIGH)
        goal = start + layout.rng.uniform(*distance) * direction(layout.rng, 3)
        inside = in_workspace(goal) and goal[2] > low[2]
        if inside and min(layout.gap(start[:2]), layout.gap(goal[:2]), layout.gap((start + goal)[:2] / 2)) > _APART:
            return start, goal
    return None


def _sample_place(layout: Layout, distance: tuple[float, float]) -> Array | None:
    """A place [2] on the table, so far from the object and away from others, if there is one."""
    for _ in range(_PLACES):
        place = layout.at + layout.rng.uniform(*distance) * direction(layout.rng, 2)
        if in_workspace(place, _MARGIN) and layout.gap(place) > _APART:
            return place
    return None


def _carry_stages(layout: Layout, place: Array) -> Sequence[Stage]:
    up, over = np.array([*layout.at, _OVER]), np.array([*place, _OVER])
    return Stage(up, layout.yaw, 1.0, NEAR), Stage(over, layout.yaw, 1.0, NEAR / 2)


def _put_down_stages(layout: Layout, place: Array) -> Sequence[Stage]:
    return down(place, layout.yaw, gripper=1.0), grip(place, layout.yaw, gripper=0.0)
