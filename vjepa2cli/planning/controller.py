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
from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.data.video import read_image
from vjepa2cli.errors import InputError, PlanningError
from vjepa2cli.files import digest_bytes
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.cem import CemResult, CemSettings, Energies, cem
from vjepa2cli.planning.model_card import load_world_model, open_world_model, read_state_space
from vjepa2cli.settings import CemConfig, PlanConfig

__all__ = ["Controller", "Plan", "generator_for", "load_world_model", "plan"]

STATE_FIELDS = "x, y, z (metres), roll, pitch, yaw (radians), gripper 0 open..1 closed"
_PLANNED = [0, 1, 2, 6]
"""What CEM plans of an end effector's action: translation and gripper; the rotation stays 0, as in the released planner."""
_ROWS = 64
"""Samples in one pass of the predictor, so that memory does not grow with their number."""

_DEFAULT = PlanConfig()


def generator_for(*key: int) -> torch.Generator:
    """A generator that is a function of whole numbers, such as (seed, episode, step)."""
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


class Controller:
    """Plans in the latent space of a world model: the energy of actions is the mean |predicted - goal| after the horizon."""

    def __init__(self, world: WorldModel, config: CemConfig, *, space: StateSpace = END_EFFECTOR) -> None:
        """Raises PlanningError for a predictor whose actions or states are not the numbers of `space`."""
        spec = world.ac.spec
        if (spec.action_dim, spec.state_dim) != (space.width, space.width):
            raise PlanningError(
                f"model: actions of {spec.action_dim} and states of {spec.state_dim} numbers; its robot needs "
                f"{space.width} of each: {space.describe()}"
            )
        self._world, self._config, self._space = world, config, space
        self._search = _search(config, space)

    def plan_latent(self, latent: Tensor, state: Tensor, goal: Tensor, *, generator: torch.Generator) -> CemResult:
        """Plan from `latent` [H*W, D] at `state` [S] to the latent `goal`; the result's arrays are [H, S].

        An end effector keeps its rotation. The first standard deviation is the box's half width, for a gripper 1.
        Source: notebooks/utils/mpc_utils.py of facebookresearch/vjepa2.
        """
        search, horizon = self._search, self._config.horizon
        limit, spread = (torch.tensor(values, device=latent.device) for values in (search.limit, search.spread))

        def whole(planned: Tensor) -> Tensor:
            return expand_actions(planned) if self._space.kind == "end_effector" else planned

        result = cem(
            lambda actions: self.energy(latent, state, goal, whole(actions)),
            mean=torch.zeros(horizon, len(limit), device=latent.device),
            std=spread.expand(horizon, -1),
            bounds=(-limit, limit),
            config=search.settings,
            generator=generator,
        )
        return replace(result, actions=whole(result.actions), mean=whole(result.mean), std=whole(result.std))

    def energy(self, latent: Tensor, state: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Energy [S] of action sequences [S, H, A] from `latent` [H*W, D] at `state` [A]: mean |z_H - goal|."""
        last = self.predict(latent, state, actions)[:, -1]
        return (last - goal.float()).abs().mean((1, 2))

    def predict(self, latent: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents [S, H, H*W, D], float32, of action sequences [S, H, A] that start at one latent and state."""
        return torch.cat([self._rollout(latent, state, part) for part in torch.split(actions, _ROWS)])

    def _rollout(self, latent: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        rows, half = len(actions), self._config.precision == "bf16"
        with torch.inference_mode(), torch.autocast(latent.device.type, torch.bfloat16, enabled=half):
            predicted: Tensor = self._world.rollout(
                latent.expand(rows, 1, *latent.shape), state.to(latent).expand(rows, 1, -1), actions.to(latent)
            )
        return predicted.float()


@dataclass(frozen=True)
class _Search:
    """What CEM looks through: the box's half widths and first standard deviations of the planned numbers."""

    limit: list[float]
    spread: list[float]
    settings: CemSettings


def _search(config: CemConfig, space: StateSpace) -> _Search:
    """Raises PlanningError for a robot's own numbers of which nobody knows how far they go in one step."""
    counts = CemSettings(samples=config.samples, iterations=config.iterations, elites=config.elites)
    if space.kind == "end_effector":
        planned = 1.0 if config.plan_gripper else 0.0
        settings = replace(
            counts,
            mean_smoothing=(*[config.mean_smoothing] * 3, config.gripper_mean_smoothing),
            std_smoothing=(*[config.std_smoothing] * 3, config.gripper_std_smoothing),
            dead_zone=(0.0, 0.0, 0.0, config.gripper_dead_zone),
        )
        limit = [config.max_translation] * 3 + [config.gripper_bound * planned]
        return _Search(limit, [config.initial_std or config.max_translation] * 3 + [planned], settings)
    if space.usual_change is None:
        raise PlanningError("model: its config.json names no usual_change of its robot's numbers; run 'vjepa2 precompute' again")
    limit = [config.max_change * change for change in space.usual_change]
    return _Search(limit, limit, replace(counts, mean_smoothing=config.mean_smoothing, std_smoothing=config.std_smoothing))


def expand_actions(planned: Tensor) -> Tensor:
    """Planned numbers [..., 4] (translation, gripper) as actions [..., 7] with rotation 0."""
    actions = planned.new_zeros(*planned.shape[:-1], END_EFFECTOR.width)
    actions[..., _PLANNED] = planned
    return actions


@dataclass(frozen=True)
class Plan:
    """`actions` [H, A] to execute from the first, with what the model expects of them.

    Energies are mean |latent - goal|: `energies` of every iteration, `idle_energy` after doing nothing, `final_energy` after the
    plan, `observed_energy` of the observation itself. `seconds` is the time of loading, encoding and planning.
    `action_fields` names the numbers of an action.
    """

    actions: NDArray[np.float64]
    energies: tuple[Energies, ...]
    observed_energy: float
    idle_energy: float
    final_energy: float
    seconds: float
    action_fields: str

    def to_tree(self) -> dict[str, Any]:
        """The plan as plain JSON types, without the time it took."""
        return {
            "actions": self.actions.tolist(),
            "action_fields": self.action_fields,
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

    `model` is the run directory of a post-training (or a released checkpoint), `state` the robot's numbers at the observation.
    With `out`, the plan is written there as JSON. Raises PlanningError for a model that nobody trained and for a missing or
    malformed state, VideoError or InputError for images that cannot be read.
    """
    space = read_state_space(model)
    current = check_state(state, space=space)
    observed, wanted = _read(obs, "obs"), _read(goal, "goal")
    started = time.perf_counter()
    world, card = open_world_model(model, device=device)
    card.require_trained()
    controller = Controller(world, config.cem, space=space)
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
        action_fields=f"{space.describe()}; differences to the state before",
    )
    if out is not None:
        inputs = {"obs": _digest(observed), "goal": _digest(wanted), "model": card.digest, "encoder": card.encoder_digest}
        origin = provenance("plan", config, inputs=inputs, seed=config.seed)
        body = made.to_tree() | {"state": current.tolist(), "model": card.to_tree()}
        write_report(out, "plan", body, provenance=origin, timing={"seconds": round(made.seconds, 3)})
    return made


def check_state(state: Sequence[float] | NDArray[np.floating] | None, *, space: StateSpace = END_EFFECTOR) -> Tensor:
    """The state as a float32 tensor [S]; raises PlanningError where it is missing or is not as many usable numbers."""
    fields = STATE_FIELDS if space.kind == "end_effector" else space.describe()
    if state is None:
        raise PlanningError(
            f"state: missing; the model needs where the robot is in the observation, {space.width} numbers: {fields}"
        )
    numbers = np.asarray(state, dtype=np.float32).reshape(-1)
    if len(numbers) != space.width:
        raise PlanningError(f"state: {len(numbers)} numbers given, {space.width} needed: {fields}")
    if not np.isfinite(numbers).all():
        raise PlanningError(f"state: {numbers.tolist()} holds a value that is not finite; needed are {fields}")
    for name, value, limits in zip(space.names, numbers.tolist(), space.limits, strict=True):
        if limits is not None and not limits[0] <= value <= limits[1]:
            raise PlanningError(f"state: {name} {value:g} is not in [{limits[0]:g}, {limits[1]:g}]; needed are {fields}")
    return torch.from_numpy(numbers.copy())


def _read(image: Image, name: str) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{name}: an array {list(image.shape)} of {image.dtype}; give RGB as uint8 [Y, X, 3], or a path")
    return image


def _digest(image: NDArray[np.uint8]) -> str:
    return digest_bytes(repr(image.shape).encode(), np.ascontiguousarray(image).tobytes())
