"""One episode with every policy, as one process of several plays it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.planning.cloning import Clone, cloning_policy
from vjepa2cli.planning.closed_loop import PlannerPolicy, Played, play
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.films import draw_episode
from vjepa2cli.planning.model_card import open_world_model
from vjepa2cli.planning.protocol import open_suite
from vjepa2cli.settings import EvaluateConfig, ShiftName
from vjepa2cli.simulation.environment import Episode, Observation, Policy, Suite

_RANDOM_STREAM = 1
_PLANNING_STREAM = 2


@dataclass(frozen=True)
class Job:
    """One episode of a task under a shift; with `videos` it is filmed into that folder."""

    task: str
    shift: ShiftName
    index: int
    videos: Path | None


@dataclass(frozen=True)
class Outcome:
    """The row of the report, and the seconds of each planned action, which are no part of it."""

    row: dict[str, Any]
    seconds: list[float]


class Player:
    """Opens model and environments once, and plays whatever job it is given."""

    def __init__(
        self, model: str | Path, config: EvaluateConfig, device: str, clone: Clone | None, threads: int | None = None
    ) -> None:
        """`threads`: how many this process may use; None leaves that as it is."""
        if threads is not None:
            torch.set_num_threads(threads)
        self._config, self._clone = config, clone
        self._world, self._card = open_world_model(model, device=device)
        self._suites: dict[ShiftName, Suite] = {}
        self._controllers: dict[bool, Controller] = {}

    def __call__(self, job: Job) -> Outcome:
        """Play one episode with the planner and with the policies beside it."""
        suite, config = self._suite(job.shift), self._config
        task = suite.tasks[job.task]
        key = (config.seed, job.index)
        episode = task.prepare(int(np.random.SeedSequence(key).generate_state(1)[0]))
        goals = [(self._world.encode(view.frame[None])[0], view.actions) for view in episode.goals]
        controller = self._controller(plan_gripper=task.plans_gripper)
        planner = PlannerPolicy(self._world, controller, goals, (*key, _PLANNING_STREAM))
        policies: dict[str, Policy] = {"planner": planner, **self._beside(episode, controller, goals, key)}
        played = {name: play(suite.environment, episode, policy) for name, policy in policies.items()}
        planner.look(played["planner"].observations[-1])
        row = _row(job.index, episode, played, planner)
        if job.videos is not None:
            name = f"{job.task}_{job.shift}_{job.index:03d}"
            own = played["planner"]
            row["pictures"] = draw_episode(job.videos, name, own, episode.goals, planner.energies, fps=suite.environment.rate)
        return Outcome(row, planner.seconds)

    def close(self) -> None:
        """Close the environments."""
        while self._suites:
            self._suites.popitem()[1].environment.close()

    def _beside(
        self, episode: Episode, controller: Controller, goals: Sequence[tuple[Tensor, int]], key: tuple[int, int]
    ) -> dict[str, Policy]:
        rng = np.random.default_rng([*key, _RANDOM_STREAM])
        low, high = (edge[0].numpy().astype(np.float64) for edge in (controller.actions.low, controller.actions.high))

        def at_random(_: Observation) -> np.ndarray[Any, np.dtype[np.float64]]:
            return rng.uniform(low, high)

        policies: dict[str, Policy] = {"random": at_random}
        expert = episode.expert(self._config.cem.max_translation)
        if expert is not None:
            policies["expert"] = expert
        if self._clone is not None:
            policies["cloning"] = cloning_policy(self._clone, self._world, goals)
        return policies

    def _suite(self, shift: ShiftName) -> Suite:
        if shift not in self._suites:
            self._suites[shift] = open_suite(self._card, self._config, shift)
        return self._suites[shift]

    def _controller(self, *, plan_gripper: bool) -> Controller:
        """Beside a task that leaves the gripper alone, the planner does as well."""
        cem = self._config.cem
        if not plan_gripper:
            cem = cem.model_copy(update={"plan_gripper": False})
        if plan_gripper not in self._controllers:
            self._controllers[plan_gripper] = Controller(self._world, cem, space=self._card.space)
        return self._controllers[plan_gripper]


def _row(index: int, episode: Episode, played: dict[str, Played], planner: PlannerPolicy) -> dict[str, Any]:
    actions = played["planner"].actions
    return {
        "episode": index,
        "layout": episode.describe(),
        **{
            name: {"distances": [each.remaining for each in run.measures], "success": run.measures[-1].succeeded}
            for name, run in played.items()
        },
        "actions": actions.tolist(),
        "energies": planner.energies,
        "expected_energies": planner.expected_energies,
        "rollout": planner.rollout(actions),
        "pictures": None,
    }
