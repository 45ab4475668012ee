"""Grasp: both fingers have to hold the object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import GraspConfig, SceneConfig
from vjepa2cli.simulation.environment import Measure, Observation, Policy, View
from vjepa2cli.simulation.experts import LOW, NEAR, Follow, Stage, down, grip
from vjepa2cli.simulation.scene import Scene, clearance
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks.layout import (
    GOAL_MOMENT,
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

_STREAM = 23
_STARTS = 200
_OVER = 0.10


@dataclass(frozen=True)
class GraspEpisode:
    """One grasp: the hand starts open at the pose `start` [7]."""

    environment: Tabletop
    layout: Layout
    start: Array
    lift: float
    goals: tuple[View, ...]

    def begin(self) -> Observation:
        """The hand open, at the start."""
        return self.environment.reset(seed=self.layout.scene_seed, state=self.start)

    def measure(self) -> Measure:
        """Whether the object is held, and high enough; how far the hand is from it."""
        now = self.environment.situation()
        place = now.objects[self.layout.target]
        raised = not self.lift or float(place[2]) - self.layout.item.size >= 0.5 * self.lift
        return Measure(now.held == self.layout.target and raised, float(np.linalg.norm(now.state[:3] - place)))

    def expert(self, max_translation: float) -> Policy:
        """Over it, down, close, and up."""
        stages = iter(grasp_stages(self.layout, self.start, self.lift))
        return as_policy(self.environment, Follow(stages, np.random.default_rng(0), max_translation=max_translation))

    def describe(self) -> dict[str, Any]:
        """Where the hand and the object are at first."""
        return describe(self.layout, start=self.start[:3], goal=self.layout.at)


class Grasp:
    """Take hold of an object."""

    plans_gripper = True
    unit = "m"

    def __init__(self, environment: Tabletop, config: GraspConfig, scene: SceneConfig) -> None:
        """See the config."""
        self._environment, self._config, self._scene = environment, config, scene

    def prepare(self, seed: int) -> GraspEpisode:
        """The episode of `seed`, of which a script has shown that it can be done."""
        found = (self._lay_out(layout) for layout in layouts(seed, _STREAM, self._scene, choose_graspable))
        return first_feasible(seed, found, "grasp")

    def _lay_out(self, layout: Layout) -> GraspEpisode | None:
        start = sample_open_hand(layout, self._config.distance)
        if start is None:
            return None
        environment = self._environment
        environment.reset(seed=layout.scene_seed, state=start, moment=GOAL_MOMENT)
        show(environment, grasp_stages(layout, start, self._config.lift))
        views = (View(environment.observe().frame, self._config.actions),)
        episode = GraspEpisode(environment, layout, start, self._config.lift, views)
        return episode if episode.measure().succeeded else None


def choose_graspable(scene: Scene) -> int | None:
    """The first box, else whatever comes first."""
    boxes = [index for index, item in enumerate(scene.objects) if item.shape == "box"]
    return next(iter(boxes), 0 if scene.objects else None)


def sample_open_hand(layout: Layout, distance: tuple[float, float]) -> Array | None:
    """A pose [7] of the open hand above the table, so far from the object's middle and free of all objects, if there is one."""
    rng = layout.rng
    around = np.array([*layout.at, LOW])
    for _ in range(_STARTS):
        position = around + rng.uniform(*distance) * direction(rng, 3)
        if in_workspace(position) and position[2] > LOW + 0.03 and clearance(position, layout.scene) > 0:
            return np.array([*position, 0.0, 0.0, layout.yaw, 0.0])
    return None


def grasp_stages(layout: Layout, start: Array, lift: float = 0.0) -> list[Stage]:
    """From the start to where the object is held, and raised by `lift`."""
    height = max(float(start[2]), _OVER)
    stages = [Stage(np.array([*layout.at, height]), layout.yaw, 0.0, NEAR / 2), down(layout.at, layout.yaw, gripper=0.0)]
    stages.append(grip(layout.at, layout.yaw, gripper=1.0))
    if lift:
        stages.append(Stage(np.array([*layout.at, LOW + lift]), layout.yaw, 1.0, NEAR / 2))
    return stages
