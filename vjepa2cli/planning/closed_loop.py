"""One episode in closed loop: the planner as a policy, what it saw and expected, and how things stood."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.cem import CemResult
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.simulation.environment import Environment, Episode, Measure, Observation, Policy

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """One episode: `observations` and `measures`, n + 1 each, before and after the `actions` [n, A]."""

    observations: list[Observation]
    measures: list[Measure]
    actions: Numbers


@dataclass
class PlannerPolicy:
    """The policy under test: it plans anew at every observation and hands out the first action.

    `goals` are the latents to be reached, each with the number of actions for it; the next one is due when those are spent.
    `energies` is mean |latent - goal| at each observation, `expected_energies` what the model expects after the action, `latents`
    and `states` are what it saw, `seconds` what each action took, encoding included, `before` the newest plan. `key` seeds the
    sampling.
    """

    world: WorldModel
    controller: Controller
    goals: Sequence[tuple[Tensor, int]]
    key: tuple[int, ...]
    energies: list[float] = field(default_factory=list)
    expected_energies: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    before: CemResult | None = None

    def __call__(self, observation: Observation) -> Numbers:
        """The action [A] for an observation."""
        started = time.perf_counter()
        latent, state = self.look(observation)
        goal = self.goal
        past = self.controller.past(torch.stack(self.latents), torch.stack(self.states))
        generator = generator_for(*self.key, len(self.expected_energies))
        planned = self.controller.plan_latent(latent, state, goal, generator=generator, past=past, before=self.before)
        self.before = planned
        self.seconds.append(time.perf_counter() - started)
        expected = self.controller.predict(latent, state, planned.actions[None], past=past)[0, 0]
        self.expected_energies.append(_distance(expected, goal))
        if self._due(len(self.expected_energies)) != self._due(len(self.expected_energies) - 1):
            self.before = None
        action: Numbers = planned.actions[0].cpu().numpy().astype(np.float64)
        return action

    @property
    def goal(self) -> Tensor:
        """The goal that is due."""
        return self.goals[self._due(len(self.expected_energies))][0]

    def _due(self, taken: int) -> int:
        """The number of the goal that is due after so many actions; the last one stays."""
        ends = np.cumsum([count for _, count in self.goals])
        return min(int((ends <= taken).sum()), len(self.goals) - 1)

    def look(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Encode an observation and keep it: latent [H*W, D] and state [S]."""
        latent, state = self.world.encode(observation.frame[None])[0], torch.from_numpy(observation.state)
        self.latents.append(latent)
        self.states.append(state)
        self.energies.append(_distance(latent, self.goal))
        return latent, state

    def rollout(self, actions: Numbers) -> dict[str, list[float]]:
        """What the model expects, at the start, of all the actions that were taken, after each of them beside what came.

        `expected_energy` and `energy` are distances to the last goal, `error` is the distance of prediction and observation,
        `copy_error` that of the first observation and the one that came.
        """
        taken = torch.from_numpy(actions.astype(np.float32))[None]
        expected = self.controller.predict(self.latents[0], self.states[0], taken)[0]  # [n, H*W, D]
        seen, first, goal = torch.stack(self.latents[1:]), self.latents[0], self.goals[-1][0]
        differences = {
            "expected_energy": expected - goal,
            "energy": seen - goal,
            "error": expected - seen,
            "copy_error": first - seen,
        }
        return {name: difference.abs().mean((1, 2)).tolist() for name, difference in differences.items()}


def _distance(latent: Tensor, goal: Tensor) -> float:
    return float((latent.float() - goal.float()).abs().mean())


def play(environment: Environment, episode: Episode, policy: Policy) -> Played:
    """Let a policy act from the episode's start, as often as its goals allow."""
    observations, measures, actions = [episode.begin()], [episode.measure()], []
    for _ in range(sum(view.actions for view in episode.goals)):
        actions.append(policy(observations[-1]))
        observations.append(environment.step(actions[-1]))
        measures.append(episode.measure())
    return Played(observations, measures, np.stack(actions))
