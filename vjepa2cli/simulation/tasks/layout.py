"""What tasks with objects have in common: a script that shows the goal, tried on one layout after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.environment import Observation, Policy
from vjepa2cli.simulation.experts import Follow, Motion, Stage
from vjepa2cli.simulation.scene import WORKSPACE_HIGH, WORKSPACE_LOW, Scene, SceneObject, sample_scene
from vjepa2cli.simulation.tabletop import Tabletop

Array = NDArray[np.float64]
_Episode = TypeVar("_Episode")

GOAL_MOMENT = 1
"""Goal images are taken at another moment than the start: what wanders about is elsewhere, and the light may differ."""
SHOWING_STEP = 0.05
"""Metres an axis that a script moves in one action while it shows a goal."""
_LAYOUTS = 40
_STAGE_ACTIONS = 16


@dataclass(frozen=True)
class Layout:
    """An object of a scene to be handled: its number, and the stream of whatever else is drawn."""

    scene_seed: int
    scene: Scene
    target: int
    rng: np.random.Generator

    @property
    def item(self) -> SceneObject:
        """The object."""
        return self.scene.objects[self.target]

    @property
    def at(self) -> Array:
        """Where it is on the table, [2]."""
        return np.array([self.item.x, self.item.y])

    @property
    def yaw(self) -> float:
        """The yaw of the hand that takes hold of it."""
        return self.item.yaw if self.item.shape == "box" else 0.0

    def gap(self, place: Array) -> float:
        """Metres from a place [2] on the table to the nearest other object."""
        others = [np.array([item.x, item.y]) for index, item in enumerate(self.scene.objects) if index != self.target]
        return float(min((np.linalg.norm(place - other) for other in others), default=np.inf))


def layouts(seed: int, stream: int, config: SceneConfig, choose: Callable[[Scene], int | None]) -> Iterator[Layout]:
    """One layout after another for an episode's seed; scenes in which there is nothing to `choose` are passed over."""
    for attempt in range(_LAYOUTS):
        key = [seed, stream, attempt]
        scene_seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        scene = sample_scene(scene_seed, config)
        target = choose(scene)
        if target is not None:
            yield Layout(scene_seed, scene, target, np.random.default_rng([*key, 1]))


def first_feasible(seed: int, found: Iterator[_Episode | None], task: str) -> _Episode:
    """The first episode that the script could show; raises InputError where there is none."""
    episode = next((each for each in found if each is not None), None)
    if episode is None:
        raise InputError(
            f"{task}: no scene of {_LAYOUTS} for seed {seed} has an object that the script can handle; "
            "give scene.num_objects of 1 to 3, or a smaller distance"
        )
    return episode


def show(environment: Tabletop, stages: Sequence[Stage]) -> bool:
    """Go through stages without noise; whether all of them were completed."""
    script = Follow(iter(stages), np.random.default_rng(0), max_translation=SHOWING_STEP)
    for _ in range(_STAGE_ACTIONS * len(stages)):
        action = script(environment.situation())
        if script.done:
            return True
        environment.advance(action)
    return False


def as_policy(environment: Tabletop, motion: Motion) -> Policy:
    """A script as a policy: it looks at the situation instead of the picture."""

    def act(_: Observation) -> Array:
        return motion(environment.situation())

    return act


def in_workspace(position: Array, margin: float = 0.0) -> bool:
    """Whether a position of the hand, [3] or [2], is so far inside the workspace."""
    low, high = WORKSPACE_LOW[: len(position)], WORKSPACE_HIGH[: len(position)]
    return bool((position >= low + margin).all() and (position <= high - margin).all())


def direction(rng: np.random.Generator, dimensions: int) -> Array:
    """A unit vector, any with equal chance."""
    vector: Array = rng.normal(size=dimensions)
    return vector / np.linalg.norm(vector)


def describe(layout: Layout, *, start: Array, goal: Array) -> dict[str, Any]:
    """An episode with an object, as JSON types."""
    return {
        "scene_seed": layout.scene_seed,
        "object": f"{layout.item.colour} {layout.item.shape}",
        "start": start.tolist(),
        "goal": goal.tolist(),
    }
