"""Behaviour cloning on frozen latents: what a planner has to be better than, where there are recordings to copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.controller import generator_for
from vjepa2cli.settings import CloningConfig
from vjepa2cli.simulation.environment import Observation

_HELD_OUT = 512


class Recordings(Protocol):
    """Latents, states and actions of whole episodes."""

    @property
    def lengths(self) -> Sequence[int]:
        """Steps of each episode."""

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Latents [T, H*W, D] of an episode."""

    def states(self, index: int) -> NDArray[np.float32]:
        """States [T, S] of an episode."""

    def actions(self, index: int) -> NDArray[np.float32]:
        """Actions [T-1, A] of an episode."""


class CloningNetwork(nn.Module):
    """From the latents of now and of the goal, and the state, to an action in standard units."""

    def __init__(self, latent_dim: int, num_patches: int, numbers: int, config: CloningConfig) -> None:
        """`numbers` is the width of a state, and of an action."""
        super().__init__()
        self.read = nn.Linear(2 * latent_dim, config.patch_width)
        self.decide = nn.Sequential(
            nn.Linear(num_patches * config.patch_width + numbers, config.width),
            nn.GELU(),
            nn.Linear(config.width, config.width),
            nn.GELU(),
            nn.Linear(config.width, numbers),
        )

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights."""
        for name, values in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_uniform_(values, a=5**0.5, generator=generator)
            else:
                nn.init.zeros_(values)

    def forward(self, latents: Tensor, goals: Tensor, states: Tensor) -> Tensor:
        """[B, H*W, D], [B, H*W, D], [B, S] -> [B, A]."""
        patches = F.gelu(self.read(torch.cat((latents, goals - latents), dim=-1))).flatten(1)
        action: Tensor = self.decide(torch.cat((patches, states), dim=1))
        return action


@dataclass(frozen=True)
class Clone:
    """A network that was trained, and the scales of what it reads and says; plain arrays, so that other processes get them."""

    config: CloningConfig
    shape: tuple[int, int, int]
    weights: dict[str, NDArray[np.float32]]
    scales: dict[str, NDArray[np.float32]]
    report: dict[str, Any]

    def network(self, device: torch.device) -> CloningNetwork:
        """The network, ready."""
        network = CloningNetwork(*self.shape, self.config).to(device)
        network.load_state_dict({name: torch.from_numpy(values) for name, values in self.weights.items()})
        return network.eval().requires_grad_(False)


def clone(store: Recordings, train: Sequence[int], val: Sequence[int], config: CloningConfig) -> Clone:
    """Learn the recorded actions of the episodes `train`; `val` are held out for the error in the report.

    All frames of the training episodes are kept in memory, in half precision.
    """
    shown, held_out = _Moments(store, train), _Moments(store, val or train)
    shape = (shown.latents.shape[-1], shown.latents.shape[1], shown.states.shape[1])
    mean, std = shown.actions.mean(0), shown.actions.std(0).clamp_min(1e-6)
    state_mean, state_std = shown.states.mean(0), shown.states.std(0).clamp_min(1e-6)
    network = CloningNetwork(*shape, config)
    network.initialise(generator_for(config.seed))
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)

    def loss(moments: "_Moments", count: int, generator: torch.Generator) -> Tensor:
        latents, goals, states, actions = moments.draw(count, config.ahead, generator)
        said = network(latents, goals, (states - state_mean) / state_std)
        return F.huber_loss(said, (actions - mean) / std)

    for step in range(config.steps):
        optimizer.zero_grad()
        loss(shown, config.batch_size, generator_for(config.seed, step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)
    errors = {
        name: float(loss(moments, _HELD_OUT, generator_for(config.seed, 0, number)))
        for number, (name, moments) in enumerate((("train_loss", shown), ("val_loss", held_out)))
    }
    return Clone(
        config=config,
        shape=shape,
        weights={name: values.numpy().copy() for name, values in network.state_dict().items()},
        scales={"mean": mean.numpy(), "std": std.numpy(), "state_mean": state_mean.numpy(), "state_std": state_std.numpy()},
        report={"episodes": len(train), "frames": len(shown.latents), **errors},
    )


class _Moments:
    """Frames of episodes, one after the other."""

    def __init__(self, store: Recordings, episodes: Sequence[int]) -> None:
        lengths = [store.lengths[index] for index in episodes]
        self.latents = torch.cat([torch.from_numpy(store.tokens(index)).half() for index in episodes])
        self.states = torch.cat([torch.from_numpy(store.states(index)) for index in episodes])
        changes = [torch.from_numpy(store.actions(index)) for index in episodes]
        # The last frame of an episode has no action; it is never drawn as a beginning.
        self.actions = torch.cat([torch.cat((each, torch.zeros_like(each[:1]))) for each in changes])
        ends = torch.tensor(lengths).cumsum(0)
        self._last = torch.repeat_interleave(ends - 1, torch.tensor(lengths))
        self._begins = torch.nonzero(torch.arange(len(self._last)) < self._last).squeeze(1)

    def draw(self, count: int, ahead: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, goals, states and actions of so many moments."""
        begin = self._begins[torch.randint(len(self._begins), (count,), generator=generator)]
        goal = torch.minimum(begin + torch.randint(1, ahead + 1, (count,), generator=generator), self._last[begin])
        return self.latents[begin].float(), self.latents[goal].float(), self.states[begin], self.actions[begin]


@dataclass
class CloningPolicy:
    """A clone as a policy: one look, one action."""

    world: WorldModel
    network: CloningNetwork
    scales: dict[str, Tensor]
    goals: Sequence[tuple[Tensor, int]]
    taken: int = 0

    def __call__(self, observation: Observation) -> NDArray[np.float64]:
        """The action [A] for an observation and the goal that is due."""
        ends = np.cumsum([count for _, count in self.goals])
        goal = self.goals[min(int((ends <= self.taken).sum()), len(self.goals) - 1)][0]
        self.taken += 1
        latent = self.world.encode(observation.frame[None])
        state = torch.from_numpy(observation.state)[None].to(latent.device)
        with torch.inference_mode():
            said = self.network(latent, goal[None], (state - self.scales["state_mean"]) / self.scales["state_std"])[0]
        action: NDArray[np.float64] = (said * self.scales["std"] + self.scales["mean"]).cpu().numpy().astype(np.float64)
        return action


def cloning_policy(clone: Clone, world: WorldModel, goals: Sequence[tuple[Tensor, int]]) -> CloningPolicy:
    """The policy of a clone in a world with goals, each with its number of actions."""
    scales = {name: torch.from_numpy(values).to(world.device) for name, values in clone.scales.items()}
    return CloningPolicy(world, clone.network(world.device), scales, goals)
