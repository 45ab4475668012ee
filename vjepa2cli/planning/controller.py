"""The controller: it makes a cost of a world model and a goal, and minimises it. `plan` does so once, for one pair of images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.video import read_image
from vjepa2cli.errors import InputError, PlanningError
from vjepa2cli.files import digest_bytes
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.cem import CemResult, CemSettings, Energies, cem
from vjepa2cli.planning.model_card import load_world_model, open_world_model
from vjepa2cli.settings import CemConfig, PlanConfig

__all__ = ["Controller", "Plan", "generator_for", "load_world_model", "plan"]

STATE_FIELDS = "x, y, z (metres), roll, pitch, yaw (radians), gripper 0 open..1 closed"
_STATE_DIM = 7
_PLANNED = [0, 1, 2, 6]
"""What CEM plans of an action: the translation and the gripper; the rotation stays 0, as in the released planner."""
_ROWS = 64
"""Samples in one pass of the predictor, so that memory does not grow with their number."""

_DEFAULT = PlanConfig()


def generator_for(*key: int) -> torch.Generator:
    """A generator that is a function of whole numbers, such as (seed, episode, step)."""
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


class Controller:
    """Plans in the latent space of a world model: the energy of actions is the mean |predicted - goal| after the horizon."""

    def __init__(self, world: WorldModel, config: CemConfig) -> None:
        """Raises PlanningError for a predictor whose actions or states are not the seven numbers of an end effector."""
        spec = world.ac.spec
        if (spec.action_dim, spec.state_dim) != (_STATE_DIM, _STATE_DIM):
            raise PlanningError(
                f"model: actions of {spec.action_dim} and states of {spec.state_dim} numbers; the planner moves an end effector, "
                f"which needs {_STATE_DIM} of each: {STATE_FIELDS}"
            )
        self._world, self._config = world, config
        self._settings = CemSettings(
            samples=config.samples,
            iterations=config.iterations,
            elites=config.elites,
            mean_smoothing=(*[config.mean_smoothing] * 3, config.gripper_mean_smoothing),
            std_smoothing=(*[config.std_smoothing] * 3, config.gripper_std_smoothing),
            dead_zone=(0.0, 0.0, 0.0, config.gripper_dead_zone),
        )

    def plan_latent(self, latent: Tensor, state: Tensor, goal: Tensor, *, generator: torch.Generator) -> CemResult:
        """Plan from `latent` [H*W, D] at `state` [7] to the latent `goal`; the result's arrays are [H, 7], rotation 0.

        The first standard deviation is the box's half width for the translation and 1 for the gripper.
        Source: notebooks/utils/mpc_utils.py of facebookresearch/vjepa2.
        """
        config = self._config
        planned = 1.0 if config.plan_gripper else 0.0
        limit = torch.tensor([config.max_translation] * 3 + [config.gripper_bound * planned], device=latent.device)
        spread = torch.tensor([config.initial_std or config.max_translation] * 3 + [planned], device=latent.device)
        result = cem(
            lambda actions: self.energy(latent, state, goal, expand_actions(actions)),
            mean=torch.zeros(config.horizon, 4, device=latent.device),
            std=spread.expand(config.horizon, 4),
            bounds=(-limit, limit),
            config=self._settings,
            generator=generator,
        )
        return replace(
            result, actions=expand_actions(result.actions), mean=expand_actions(result.mean), std=expand_actions(result.std)
        )

    def energy(self, latent: Tensor, state: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Energy [S] of action sequences [S, H, 7] from `latent` [H*W, D] at `state` [7]: mean |z_H - goal|."""
        last = self.predict(latent, state, actions)[:, -1]
        return (last - goal.float()).abs().mean((1, 2))

    def predict(self, latent: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents [S, H, H*W, D], float32, of action sequences [S, H, 7] that start at one latent and state."""
        return torch.cat([self._rollout(latent, state, part) for part in torch.split(actions, _ROWS)])

    def _rollout(self, latent: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        rows, half = len(actions), self._config.precision == "bf16"
        with torch.inference_mode(), torch.autocast(latent.device.type, torch.bfloat16, enabled=half):
            predicted: Tensor = self._world.rollout(
                latent.expand(rows, 1, *latent.shape), state.to(latent).expand(rows, 1, _STATE_DIM), actions.to(latent)
            )
        return predicted.float()


def expand_actions(planned: Tensor) -> Tensor:
    """Planned numbers [..., 4] (translation, gripper) as actions [..., 7] with rotation 0."""
    actions = planned.new_zeros(*planned.shape[:-1], _STATE_DIM)
    actions[..., _PLANNED] = planned
    return actions


@dataclass(frozen=True)
class Plan:
    """`actions` [H, 7] to execute from the first, with what the model expects of them.

    Energies are mean |latent - goal|: `energies` of every iteration, `idle_energy` after doing nothing, `final_energy` after the
    plan, `observed_energy` of the observation itself. `seconds` is the time of loading, encoding and planning.
    """

    actions: NDArray[np.float64]
    energies: tuple[Energies, ...]
    observed_energy: float
    idle_energy: float
    final_energy: float
    seconds: float

    def to_tree(self) -> dict[str, Any]:
        """The plan as plain JSON types, without the time it took."""
        return {
            "actions": self.actions.tolist(),
            "action_fields": "x, y, z (metres), roll, pitch, yaw (radians), gripper; differences to the state before",
            "energies": [energies._asdict() for energies in self.energies],
            "observed_energy": self.observed_energy,
            "idle_energy": self.idle_energy,
            "final_energy": self.final_energy,
        }


Image = str | Path | NDArray[np.uint8]


def plan(
    obs: Image,
    goal: Image,
    *,
    model: str | Path,
    state: Sequence[float] | NDArray[np.floating] | None = None,
    config: PlanConfig = _DEFAULT,
    out: Path | None = None,
    device: torch.device | str = "cpu",
) -> Plan:
    """Plan actions that bring the robot from the image `obs` to the image `goal`, each a path or uint8 [Y, X, 3].

    `model` is the run directory of a post-training (or a released checkpoint), `state` the seven numbers of the observation. With
    `out`, the plan is written there as JSON. Raises PlanningError for a model that nobody trained and for a missing or malformed
    state, VideoError or InputError for images that cannot be read.
    """
    current = check_state(state)
    observed, wanted = _read(obs, "obs"), _read(goal, "goal")
    started = time.perf_counter()
    world, card = open_world_model(model, device=device)
    card.require_trained()
    controller = Controller(world, config.cem)
    with torch.inference_mode():
        latent, target = world.encode(observed[None])[0], world.encode(wanted[None])[0]
    result = controller.plan_latent(latent, current, target, generator=generator_for(config.seed))
    compared = torch.stack([torch.zeros_like(result.actions), result.actions])
    idle, final = controller.energy(latent, current, target, compared).tolist()
    made = Plan(
        actions=result.actions.cpu().numpy().astype(np.float64).round(7),
        energies=result.energies,
        observed_energy=float((latent - target).abs().mean()),
        idle_energy=idle,
        final_energy=final,
        seconds=time.perf_counter() - started,
    )
    if out is not None:
        inputs = {"obs": _digest(observed), "goal": _digest(wanted), "model": card.digest, "encoder": card.encoder_digest}
        origin = provenance("plan", config, inputs=inputs, seed=config.seed)
        body = made.to_tree() | {"state": current.tolist(), "model": card.to_tree()}
        write_report(out, "plan", body, provenance=origin, timing={"seconds": round(made.seconds, 3)})
    return made


def check_state(state: Sequence[float] | NDArray[np.floating] | None) -> Tensor:
    """The state as a float32 tensor [7]; raises PlanningError where it is missing or is not seven usable numbers."""
    if state is None:
        raise PlanningError(
            f"state: missing; the model needs where the hand is in the observation, seven numbers: {STATE_FIELDS}"
        )
    numbers = np.asarray(state, dtype=np.float32).reshape(-1)
    if len(numbers) != _STATE_DIM:
        raise PlanningError(f"state: {len(numbers)} numbers given, {_STATE_DIM} needed: {STATE_FIELDS}")
    if not np.isfinite(numbers).all():
        raise PlanningError(f"state: {numbers.tolist()} holds a value that is not finite; needed are {STATE_FIELDS}")
    if not 0 <= numbers[6] <= 1:
        raise PlanningError(f"state: gripper {numbers[6]:g} is not in [0, 1]; needed are {STATE_FIELDS}")
    return torch.from_numpy(numbers.copy())


def _read(image: Image, name: str) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{name}: an array {list(image.shape)} of {image.dtype}; give RGB as uint8 [Y, X, 3], or a path")
    return image


def _digest(image: NDArray[np.uint8]) -> str:
    return digest_bytes(repr(image.shape).encode(), np.ascontiguousarray(image).tobytes())
