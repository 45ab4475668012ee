"""Reach: the hand has to be where it is in the goal image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.settings import ReachConfig, SceneConfig
from vjepa2cli.simulation.environment import Measure, Observation, Policy, View
from vjepa2cli.simulation.experts import towards
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, clearance, sample_scene
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks.layout import GOAL_MOMENT

Array = NDArray[np.float64]

_STREAM = 17
_CANDIDATES = 400
_PATH_POINTS = np.linspace(0, 1, 6)
_LARGEST_YAW = 0.2


@dataclass(frozen=True)
class ReachEpisode:
    """One reach: `scene_seed` names the scene; `start` and `goal` are hand poses [7] that differ in position alone."""

    environment: Tabletop
    scene_seed: int
    start: Array
    goal: Array
    tolerance: float
    goals: tuple[View, ...]

    def begin(self) -> Observation:
        """The hand at the start."""
        return self.environment.reset(seed=self.scene_seed, state=self.start)

    def measure(self) -> Measure:
        """Metres from the hand to the goal."""
        remaining = float(np.linalg.norm(self.environment.situation().state[:3].astype(np.float64) - self.goal[:3]))
        return Measure(remaining <= self.tolerance, remaining)

    def expert(self, max_translation: float) -> Policy:
        """Straight to the goal."""

        def act(observation: Observation) -> Array:
            offset = self.goal[:3] - observation.state[:3].astype(np.float64)
            return np.concatenate([towards(offset, max_translation), np.zeros(4)])

        return act

    def describe(self) -> dict[str, Any]:
        """Both positions."""
        return {"scene_seed": self.scene_seed, "start": self.start[:3].tolist(), "goal": self.goal[:3].tolist()}


class Reach:
    """Bring the hand to where it is in the goal image. The straight line from start to goal keeps clear of the objects."""

    plans_gripper = False
    unit = "m"

    def __init__(self, environment: Tabletop, config: ReachConfig, scene: SceneConfig) -> None:
        """Raises InputError for a distance that the workspace does not have."""
        low, high = config.distance
        longest = float(np.linalg.norm(WORKSPACE_HIGH - WORKSPACE_LOW))
        if not 0 < low <= high < 0.8 * longest:
            raise InputError(
                f"distance: {low:g} to {high:g} m is not within (0, {0.8 * longest:.2f}); the workspace has no farther goals"
            )
        self._environment, self._config, self._scene = environment, config, scene

    def prepare(self, seed: int) -> ReachEpisode:
        """The episode of `seed`; where no free pair is found in many tries, the one that keeps farthest from objects."""
        scene_seed = int(np.random.SeedSequence([seed, _STREAM]).generate_state(1)[0])
        start, goal = self._sample(seed, scene_seed)
        seen = self._environment.reset(seed=scene_seed, state=goal, moment=GOAL_MOMENT)
        views = (View(seen.frame, self._config.actions),)
        return ReachEpisode(self._environment, scene_seed, start, goal, self._config.tolerance, views)

    def _sample(self, seed: int, scene_seed: int) -> tuple[Array, Array]:
        scene = sample_scene(scene_seed, self._scene)
        rng = np.random.default_rng([seed, _STREAM, 1])
        turn = [0.0, 0.0, rng.uniform(-_LARGEST_YAW, _LARGEST_YAW), 0.0]
        best, widest = None, -np.inf
        for _ in range(_CANDIDATES):
            start = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            direction = rng.normal(size=3)
            goal = start + rng.uniform(*self._config.distance) * direction / np.linalg.norm(direction)
            if (goal < WORKSPACE_LOW).any() or (goal > WORKSPACE_HIGH).any():
                continue
            gap = min(clearance(start + share * (goal - start), scene) for share in _PATH_POINTS)
            if gap > widest:
                best, widest = (start, goal), gap
            if gap > 0:
                break
        assert best is not None, "a distance that __init__ allows has goals in the workspace"
        return np.concatenate([best[0], turn]), np.concatenate([best[1], turn])
