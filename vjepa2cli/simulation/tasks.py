"""Tasks with an image goal: where the hand starts, where it should be, and whether it got there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.environment import Environment, Observation
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, clearance, sample_scene

_DEFAULT_SCENE = SceneConfig()
_STREAM = 17
_CANDIDATES = 400
_PATH_POINTS = np.linspace(0, 1, 6)
_LARGEST_YAW = 0.2


@dataclass(frozen=True)
class ReachEpisode:
    """One reach: `scene_seed` names the scene; `start_state` and `goal_state` are float64 [7] and differ in position alone."""

    scene_seed: int
    start_state: NDArray[np.float64]
    goal_state: NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """Bring the hand to where it is in the goal image: `distance` (low, high) from start to goal and `tolerance`, in metres.

    `scene` is the environment's: starts, goals and the straight line between them keep clear of its objects.
    """

    distance: tuple[float, float] = (0.10, 0.20)
    tolerance: float = 0.04
    scene: SceneConfig = _DEFAULT_SCENE

    def __post_init__(self) -> None:
        low, high = self.distance
        longest = float(np.linalg.norm(WORKSPACE_HIGH - WORKSPACE_LOW))
        if not 0 < low <= high < 0.8 * longest:
            raise InputError(
                f"distance: {low:g} to {high:g} m is not within (0, {0.8 * longest:.2f}); the workspace has no farther goals"
            )

    def sample(self, seed: int) -> ReachEpisode:
        """The episode of `seed`; where no free pair is found in many tries, the one that keeps farthest from objects."""
        scene_seed = int(np.random.SeedSequence([seed, _STREAM]).generate_state(1)[0])
        scene = sample_scene(scene_seed, self.scene)
        rng = np.random.default_rng([seed, _STREAM, 1])
        turn = [0.0, 0.0, rng.uniform(-_LARGEST_YAW, _LARGEST_YAW), 0.0]
        best, widest = None, -np.inf
        for _ in range(_CANDIDATES):
            start = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            direction = rng.normal(size=3)
            goal = start + rng.uniform(*self.distance) * direction / np.linalg.norm(direction)
            if (goal < WORKSPACE_LOW).any() or (goal > WORKSPACE_HIGH).any():
                continue
            gap = min(clearance(start + share * (goal - start), scene) for share in _PATH_POINTS)
            if gap > widest:
                best, widest = (start, goal), gap
            if gap > 0:
                break
        assert best is not None, "a distance that __post_init__ allows has goals in the workspace"
        return ReachEpisode(scene_seed, np.concatenate([best[0], turn]), np.concatenate([best[1], turn]))

    def begin(self, environment: Environment, episode: ReachEpisode) -> tuple[Observation, Observation]:
        """Look at the goal, then put the hand at the start: (start, goal), both before the same scene."""
        goal = environment.reset(seed=episode.scene_seed, state=episode.goal_state)
        return environment.reset(seed=episode.scene_seed, state=episode.start_state), goal

    def remaining(self, state: NDArray[np.floating], episode: ReachEpisode) -> float:
        """Metres from the hand to the goal."""
        return float(np.linalg.norm(np.asarray(state[:3], np.float64) - episode.goal_state[:3]))

    def succeeded(self, state: NDArray[np.floating], episode: ReachEpisode) -> bool:
        """Whether the hand is within the tolerance of the goal."""
        return self.remaining(state, episode) <= self.tolerance

    def perfect_action(
        self, state: NDArray[np.floating], episode: ReachEpisode, *, max_translation: float
    ) -> NDArray[np.float64]:
        """The action [7] of a policy that knows the goal: straight to it, at most `max_translation` metres an axis."""
        offset = episode.goal_state[:3] - np.asarray(state[:3], np.float64)
        action = np.zeros(7)
        action[:3] = offset * min(1.0, max_translation / max(float(np.abs(offset).max()), 1e-9))
        return action
