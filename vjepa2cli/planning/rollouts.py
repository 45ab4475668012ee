"""Rollouts of many candidates from one moment: in parts that fit memory, and no further than a deadline allows."""

import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from vjepa2cli.models.ac_predictor import AcPredictorSpec, FrameCache
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.world_model import WorldModel, read_past
from vjepa2cli.planning.clock import Deadline, Pace
from vjepa2cli.settings import CemConfig

_GIB = 1 << 30
_CPU_CACHE = 1 << 21
"""Bytes of one layer's activations that a core of a CPU keeps at hand: more rows at once are slower there, not faster."""
_UNDER_A_DEADLINE = 64
"""Rows at once on a device that could take more, so that the clock is looked at often."""
_TRIALS, _MORE_TRIALS, _TRIAL_SECONDS = 3, 100, 3.0
"""Predictions before the first deadline: a few that tell the time of a row, and more, for some seconds, that tell the load."""


class Rollouts:
    """The predictor of a world model, ready to be asked about many action sequences at a time."""

    def __init__(self, world: WorldModel, config: CemConfig) -> None:
        self._world, self._config = world, config
        if config.precision == "bf16":
            # The other users of the world model keep its weights as they are.
            self._world = copy.copy(world)
            self._world.ac = prepare_for_inference(copy.deepcopy(world.ac), device=world.device, precision="bf16")
        self.pace = Pace()
        self._ended: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the world model is."""
        return self._world.device

    def past(self, latents: Tensor, states: Tensor, actions: Tensor) -> FrameCache | None:
        """Read the frames before the current one, [T, H*W, D], with the states [T, S] and actions [T, A] that go with them."""
        with torch.inference_mode():
            rows = (part.to(latents).unsqueeze(0) for part in (latents, states, actions))
            return read_past(self._world.ac, *rows)

    def predict(self, latent: Tensor, state: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        """Predicted latents [S, H, H*W, D], float32, of action sequences [S, H, A] that start at one latent and state."""
        rows = self.rows(latent, actions.shape[1])
        return torch.cat([self._roll(latent, state, part, past) for part in torch.split(actions, rows)])

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
        """Mean |z_H - goal| [S] of action sequences [S, H, A], and `running_cost` times the mean of the same at steps before H.

        Infinite for those that a `deadline` leaves no time for.
        """
        energies = torch.full((len(actions),), torch.inf, device=latent.device)
        weights = goal_weights(latent, goal, self._config.goal_weight) if self._config.goal_weight else None
        for part in self._parts(latent, actions, deadline):
            predicted = self._roll(latent, state, actions[part], past)
            steps = predicted if self._config.running_cost else predicted[:, -1:]
            distances = (steps - goal.float()).abs()
            of_steps = distances.mean((2, 3)) if weights is None else distances.mean(3) @ weights
            energies[part] = of_steps[:, -1]
            if of_steps.shape[1] > 1:
                energies[part] += self._config.running_cost * of_steps[:, :-1].mean(1)
        return energies

    def warm_up(self, latent: Tensor, state: Tensor, *, horizon: int, past: FrameCache | None = None) -> None:
        """Predict from anywhere, so that `pace` is known and nothing is done for the first time later on."""
        rows = min(self.rows(latent, horizon), _UNDER_A_DEADLINE)
        idle = state.new_zeros(rows, horizon, len(state))
        self._timed(latent, state, idle, past)
        many = [self._timed(latent, state, idle, past) for _ in range(_TRIALS)]
        began = time.perf_counter()
        one: list[float] = []
        while len(one) < _TRIALS or (len(one) < _MORE_TRIALS and time.perf_counter() - began < _TRIAL_SECONDS):
            one.append(self._timed(latent, state, idle[:1], past))
        self.pace.calibrate(one=min(one), many=min(many), rows=rows)
        for count, seconds in ((1, one), (rows, many)):
            for taken in seconds:
                self.pace.add(taken, count)

    def begin(self) -> None:
        """A search under a deadline begins: what comes between its predictions counts as their time."""
        self._ended = None

    def end(self) -> None:
        """The search has ended, and its plan is known."""
        if self._ended is None:
            self.pace.ease()
        else:
            self.pace.add_tail(time.perf_counter() - self._ended)

    def is_over(self, deadline: Deadline) -> bool:
        """Whether no candidate can be predicted in time any more."""
        return not self.pace.rows_within(deadline.left, 1)

    def rows(self, latent: Tensor, horizon: int) -> int:
        """How many candidates are predicted at once."""
        return rows_at_once(self._world.ac.spec, len(latent), horizon, config=self._config, device=latent.device)

    def _parts(self, latent: Tensor, actions: Tensor, deadline: Deadline | None) -> Iterator[slice]:
        """Successive parts of the candidates; with a deadline each is timed, and none is begun that might end after it."""
        rows = self.rows(latent, actions.shape[1])
        start = 0
        while start < len(actions):
            if deadline is not None:
                rows = self.pace.rows_within(deadline.left, min(len(actions) - start, rows, _UNDER_A_DEADLINE))
                if not rows:
                    return
            began = time.perf_counter() if self._ended is None else self._ended
            yield slice(start, start + rows)
            if deadline is not None:
                self.pace.add(_seconds_since(began, latent.device), rows)
                self._ended = time.perf_counter()
            start += rows

    def _timed(self, latent: Tensor, state: Tensor, actions: Tensor, past: FrameCache | None) -> float:
        began = time.perf_counter()
        self._roll(latent, state, actions, past)
        return _seconds_since(began, latent.device)

    def _roll(self, latent: Tensor, state: Tensor, actions: Tensor, past: FrameCache | None) -> Tensor:
        rows = len(actions)
        with torch.inference_mode():
            predicted = self._world.rollout(
                latent.expand(rows, 1, *latent.shape), state.to(latent).expand(rows, 1, -1), actions.to(latent), past=past
            )
        return predicted.float()


def goal_weights(latent: Tensor, goal: Tensor, weight: float) -> Tensor:
    """What each token [H*W] counts, in all 1: 1 + `weight` times its distance to the goal's, in units of the mean distance."""
    change = (goal.float() - latent.float()).abs().mean(-1)
    weights = 1 + weight * change / change.mean().clamp_min(torch.finfo(change.dtype).tiny)
    return weights / weights.sum()


def _seconds_since(began: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def rows_at_once(spec: AcPredictorSpec, num_patches: int, horizon: int, *, config: CemConfig, device: torch.device) -> int:
    """How many candidates of `horizon` steps fit the memory that `config` allows, and on a CPU its cache; at least one."""
    tokens = num_patches + 2 + int(spec.use_extrinsics)
    width = 2 if config.precision == "bf16" else 4
    hidden = spec.embed_dim * spec.mlp_ratio
    frames = horizon + config.context_frames - 1
    # Keys and values of the frames before the last one in every block, and of all of them in the block at work; those of a
    # past are shared until a candidate's own frame is added to them.
    kept = 2 * (spec.depth * (frames - 1 if horizon > 1 else 0) + frames) * tokens * spec.embed_dim * width
    # The widest moment of a block: the hidden layer before and after its nonlinearity, or queries, keys and values twice.
    at_work = tokens * (max(2 * hidden, 6 * spec.embed_dim) * width + 4 * (4 * spec.embed_dim + 3 * spec.latent_dim))
    predicted = 2 * horizon * num_patches * spec.latent_dim * 4
    allowed = config.max_memory_gib * _GIB if config.max_memory_gib is not None else _default_memory(device)
    rows = allowed / (kept + at_work + predicted)
    if device.type == "cpu":
        rows = min(rows, _CPU_CACHE / (tokens * hidden * width))
    return max(1, int(rows))


def _default_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2
    return float(_GIB)
