"""One episode in closed loop: the planner as a policy, what it saw and expected, and the pictures of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.data.video import resize, write_image, write_video
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.cem import CemResult
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.simulation.environment import Environment, Observation
from vjepa2cli.simulation.tasks import Reach, ReachEpisode

Numbers = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Policy = Callable[[Observation], Numbers]

_VIDEO_SIZE = 192
_STRIP_FRAMES = 9
_GAP = 4


@dataclass(frozen=True)
class Played:
    """One episode: `observations` and `distances` (metres to the goal), n + 1 each, before and after the `actions` [n, 7]."""

    observations: list[Observation]
    distances: list[float]
    actions: Numbers


@dataclass
class PlannerPolicy:
    """The policy under test: it plans anew at every observation and hands out the first action.

    `energies` is mean |latent - goal| at each observation, `expected_energies` what the model expects after the action, `latents`
    and `states` are what it saw, `seconds` what each action took, encoding included, `before` the newest plan. `key` seeds the
    sampling.
    """

    world: WorldModel
    controller: Controller
    goal: Tensor
    key: tuple[int, ...]
    energies: list[float] = field(default_factory=list)
    expected_energies: list[float] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    before: CemResult | None = None

    def __call__(self, observation: Observation) -> Numbers:
        """The action [7] for an observation."""
        started = time.perf_counter()
        latent, state = self.look(observation)
        past = self.controller.past(torch.stack(self.latents), torch.stack(self.states))
        generator = generator_for(*self.key, len(self.expected_energies))
        planned = self.controller.plan_latent(latent, state, self.goal, generator=generator, past=past, before=self.before)
        self.before = planned
        self.seconds.append(time.perf_counter() - started)
        expected = self.controller.predict(latent, state, planned.actions[None], past=past)[0, 0]
        self.expected_energies.append(_distance(expected, self.goal))
        action: Numbers = planned.actions[0].cpu().numpy().astype(np.float64)
        return action

    def look(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Encode an observation and keep it: latent [H*W, D] and state [7]."""
        latent, state = self.world.encode(observation.frame[None])[0], torch.from_numpy(observation.state)
        self.latents.append(latent)
        self.states.append(state)
        self.energies.append(_distance(latent, self.goal))
        return latent, state

    def rollout(self, actions: Numbers) -> dict[str, list[float]]:
        """What the model expects, at the start, of all the actions that were taken, after each of them beside what came.

        `expected_energy` and `energy` are distances to the goal, `error` is the distance of prediction and observation,
        `copy_error` that of the first observation and the one that came.
        """
        taken = torch.from_numpy(actions.astype(np.float32))[None]
        expected = self.controller.predict(self.latents[0], self.states[0], taken)[0]  # [n, H*W, D]
        seen, first = torch.stack(self.latents[1:]), self.latents[0]
        differences = {
            "expected_energy": expected - self.goal,
            "energy": seen - self.goal,
            "error": expected - seen,
            "copy_error": first - seen,
        }
        return {name: difference.abs().mean((1, 2)).tolist() for name, difference in differences.items()}


def _distance(latent: Tensor, goal: Tensor) -> float:
    return float((latent.float() - goal.float()).abs().mean())


def play(environment: Environment, task: Reach, episode: ReachEpisode, policy: Policy, *, num_actions: int) -> Played:
    """Let a policy act `num_actions` times from the episode's start."""
    observation = task.begin(environment, episode)[0]
    observations, distances, actions = [observation], [task.remaining(observation.state, episode)], []
    for _ in range(num_actions):
        actions.append(policy(observation))
        observation = environment.step(actions[-1])
        observations.append(observation)
        distances.append(task.remaining(observation.state, episode))
    return Played(observations, distances, np.stack(actions))


def draw_episode(folder: Path, name: str, played: Played, goal: Pixels, *, fps: float) -> dict[str, Any]:
    """Write `<name>.mp4`, the observation beside the goal, and `<name>.png`, a film strip that ends in the goal.

    Returns their names relative to the folder's parent, and which frames the strip shows.
    """
    frames = np.stack([observation.frame for observation in played.observations])
    large = resize(frames, (_VIDEO_SIZE, _VIDEO_SIZE))
    beside = resize(goal, (_VIDEO_SIZE, _VIDEO_SIZE))
    write_video(folder / f"{name}.mp4", [np.concatenate([frame, beside], axis=1) for frame in large], fps=fps)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int)).tolist()
    gap = np.full((goal.shape[0], _GAP, 3), 255, np.uint8)
    strip = [part for index in shown for part in (frames[index], gap)]
    write_image(folder / f"{name}.png", np.concatenate([*strip, gap, goal], axis=1))
    return {"video": f"{folder.name}/{name}.mp4", "filmstrip": f"{folder.name}/{name}.png", "frames": shown}
