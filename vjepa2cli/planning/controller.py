"""The controller: it makes a cost of a world model and a goal, and minimises it."""

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.errors import PlanningError
from vjepa2cli.models.ac_predictor import FrameCache
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.action_space import action_space
from vjepa2cli.planning.cem import CemResult, cem
from vjepa2cli.planning.clock import Deadline
from vjepa2cli.planning.rollouts import Rollouts
from vjepa2cli.settings import CemConfig


def generator_for(*key: int) -> torch.Generator:
    """A generator that is a function of whole numbers, such as (seed, episode, step)."""
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


class Controller:
    """Plans in the latent space of a world model: the energy of actions is the mean |predicted - goal| after the horizon.

    A `past` is what the model has seen before the current moment; see `past`.
    """

    def __init__(self, world: WorldModel, config: CemConfig, *, space: StateSpace = END_EFFECTOR) -> None:
        """Raises PlanningError for a predictor whose actions or states are not the numbers of `space`."""
        spec = world.ac.spec
        if (spec.action_dim, spec.state_dim) != (space.width, space.width):
            raise PlanningError(
                f"model: actions of {spec.action_dim} and states of {spec.state_dim} numbers; its robot needs "
                f"{space.width} of each: {space.describe()}"
            )
        self.config, self.space, self.actions = config, space, action_space(config, space)
        self._rollouts = Rollouts(world, config)

    def plan_latent(
        self,
        latent: Tensor,
        state: Tensor,
        goal: Tensor,
        *,
        generator: torch.Generator,
        past: FrameCache | None = None,
        before: CemResult | None = None,
        deadline: Deadline | None = None,
    ) -> CemResult:
        """Plan from `latent` [H*W, D] at `state` [S] to the latent `goal`; the result's arrays are [H, A].

        `before` is the plan of the moment before, for a warm start where the config wants one. With a `deadline` the search ends
        in time and its best candidate is the plan; call `warm_up` once before, so that the time of a candidate is known.
        """
        box = self.actions
        mean = box.mean
        if self.config.warm_start and before is not None:
            moved = torch.cat((before.mean[1:], before.mean[-1:])).to(mean)
            mean = torch.where(box.std > 0, moved, mean)
        mean, std, low, high = (part.to(latent.device) for part in (mean, box.std, box.low, box.high))
        self._rollouts.begin()
        # What is scored last, the mean alone, has the time that the search leaves for it.
        soon = None if deadline is None else deadline.earlier(self.prediction_seconds)
        found = cem(
            lambda actions: self.energy(
                latent, state, goal, actions, past=past, deadline=deadline if len(actions) == 1 else soon
            ),
            mean=mean,
            std=std,
            bounds=(low, high),
            config=box.settings,
            generator=generator,
            stop=None if soon is None else lambda: self._rollouts.is_over(soon),
        )
        if deadline is not None:
            self._rollouts.end()
        return found

    def energy(
        self,
        latent: Tensor,
        state: Tensor,
        goal: Tensor,
        actions: Tensor,
        *,
        past: FrameCache | None = None,
        deadline: Deadline | None = None,
    ) -> Tensor:
        """Energy [S] of action sequences [S, H, A] from `latent` [H*W, D] at `state` [S]; infinite where time was up."""
        return self._rollouts.energy(latent, state, goal, actions, past=past, deadline=deadline)

    def predict(self, latent: Tensor, state: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        """Predicted latents [S, H, H*W, D], float32, of action sequences [S, H, A] that start at one latent and state."""
        return self._rollouts.predict(latent, state, actions, past=past)

    def past(self, latents: Tensor, states: Tensor) -> FrameCache | None:
        """What the model sees of latents [T, H*W, D] and states [T, S] before the last, the current ones; see the config.

        All candidates share it. The actions between the frames are what became of the states, as in training.
        """
        first = max(0, len(latents) - self.config.context_frames)
        if first == len(latents) - 1:
            return None
        seen = states[first:]
        return self._rollouts.past(latents[first:-1], seen[:-1], self.space.delta(seen))

    @property
    def device(self) -> torch.device:
        """Where the world model is."""
        return self._rollouts.device

    @property
    def prediction_seconds(self) -> float:
        """How long a prediction may take, as far as was measured by searches with a deadline."""
        return self._rollouts.pace.seconds(1)

    def warm_up(self, latent: Tensor, state: Tensor) -> None:
        """Predict from anywhere, so that the time of a candidate is known and nothing is done for the first time later on."""
        self._rollouts.warm_up(latent, state.to(latent), horizon=self.config.horizon)
