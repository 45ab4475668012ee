"""Push: an object on the table has to be where it is in the goal image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import PushConfig, SceneConfig
from vjepa2cli.simulation import experts
from vjepa2cli.simulation.arm import HANDS
from vjepa2cli.simulation.environment import Measure, Observation, Policy, View
from vjepa2cli.simulation.experts import LOW, PUSHED, standoff
from vjepa2cli.simulation.motions import pushable
from vjepa2cli.simulation.tabletop import Tabletop
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
)

Array = NDArray[np.float64]

_STREAM = 37
_PLACES = 200
_BEHIND = 0.02
_APART = 0.12
_SHOWN_ACTIONS = 8


@dataclass(frozen=True)
class PushEpisode:
    """One push: the hand starts closed at the pose `start` [7], the object has to come to `wanted` [2]."""

    environment: Tabletop
    layout: Layout
    start: Array
    wanted: Array
    tolerance: float
    gripper: str
    goals: tuple[View, ...]

    def begin(self) -> Observation:
        """The hand closed, behind the object."""
        return self.environment.reset(seed=self.layout.scene_seed, state=self.start)

    def measure(self) -> Measure:
        """How far the object is from where it has to be."""
        place = self.environment.situation().objects[self.layout.target, :2]
        remaining = float(np.linalg.norm(place - self.wanted))
        return Measure(remaining <= self.tolerance, remaining)

    def expert(self, max_translation: float) -> Policy:
        """Behind the object, and on towards the goal."""
        return as_policy(self.environment, _script(self.layout, self.wanted, self.gripper, max_translation))

    def describe(self) -> dict[str, Any]:
        """Where the hand is at first, and where the object has to be."""
        return describe(self.layout, start=self.start[:3], goal=self.wanted)


class Push:
    """Push an object that does not roll."""

    plans_gripper = False
    unit = "m"

    def __init__(self, environment: Tabletop, config: PushConfig, scene: SceneConfig) -> None:
        """See the config."""
        self._environment, self._config, self._scene = environment, config, scene

    def prepare(self, seed: int) -> PushEpisode:
        """The episode of `seed`, of which a script has shown that it can be done."""
        found = (self._lay_out(layout) for layout in layouts(seed, _STREAM, self._scene, pushable))
        return first_feasible(seed, found, "push")

    def _lay_out(self, layout: Layout) -> PushEpisode | None:
        ends = self._sample_ends(layout)
        if ends is None:
            return None
        (start, place), environment = ends, self._environment
        environment.reset(seed=layout.scene_seed, state=start, moment=GOAL_MOMENT)
        script = _script(layout, place, self._scene.gripper, SHOWING_STEP)
        for _ in range(_SHOWN_ACTIONS):
            now = environment.situation()
            if np.linalg.norm(now.objects[layout.target, :2] - place) < PUSHED:
                break
            environment.advance(script(now))
        wanted = environment.situation().objects[layout.target, :2]
        if np.linalg.norm(wanted - place) > PUSHED:
            return None
        views = (View(environment.observe().frame, self._config.actions),)
        return PushEpisode(environment, layout, start, wanted, self._config.tolerance, self._scene.gripper, views)

    def _sample_ends(self, layout: Layout) -> tuple[Array, Array] | None:
        """The hand's pose [7] behind the object and the place [2] to push it to, with nothing in the way, if there are any."""
        for _ in range(_PLACES):
            along = direction(layout.rng, 2)
            place = layout.at + layout.rng.uniform(*self._config.distance) * along
            hand = layout.at - (standoff(HANDS[self._scene.gripper], layout.item.size, along) + _BEHIND) * along
            gap = min(layout.gap(each) for each in (hand, place, (place + layout.at) / 2))
            if in_workspace(place, 0.02) and in_workspace(hand) and gap > _APART:
                return np.array([*hand, LOW, 0.0, 0.0, 0.0, 1.0]), place
        return None


def _script(layout: Layout, place: Array, gripper: str, max_translation: float) -> experts.Push:
    return experts.Push(
        layout.target,
        place,
        half_width=layout.item.size,
        gripper=gripper,
        rng=np.random.default_rng(0),
        max_translation=max_translation,
    )
