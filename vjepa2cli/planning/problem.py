"""One planning problem, and its solution in the model's imagination: a search, a search for every action, or a ranking."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.errors import PlanningError
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.cem import CemResult
from vjepa2cli.planning.clock import Deadline
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.goals import Pixels

STATE_FIELDS = "x, y, z (metres), roll, pitch, yaw (radians), gripper 0 open..1 closed"


@dataclass(frozen=True)
class Problem:
    """From `latent` [H*W, D] at `state` [S] to `targets` (latents), in so many `actions` each; None: one look ahead."""

    controller: Controller
    latent: Tensor
    state: Tensor
    targets: tuple[Tensor, ...]
    actions: tuple[int | None, ...]


@dataclass
class Imagined:
    """What the model imagines: `latents` and `states`, the observed ones first, and the `actions` [A] between them.

    `towards` is the number of the goal that each action is for, `searches` how they were found.
    """

    latents: list[Tensor]
    states: list[Tensor]
    actions: list[Tensor] = field(default_factory=list)
    towards: list[int] = field(default_factory=list)
    searches: list[CemResult] = field(default_factory=list)


def encode(world: WorldModel, observed: Pixels, wanted: Sequence[Pixels]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Latents of the observation and of each goal; their pictures may differ in size."""
    latent, *targets = (world.encode(image[None])[0] for image in (observed, *wanted))
    return latent, tuple(targets)


def solve(problem: Problem, *, seed: int, deadline: Deadline | None = None) -> Imagined:
    """Search for the actions; a deadline is shared evenly by the searches that are still to come."""
    controller, imagined = problem.controller, Imagined([problem.latent], [problem.state])
    if problem.actions[0] is None:
        found = controller.plan_latent(
            problem.latent,
            problem.state,
            problem.targets[0],
            generator=generator_for(seed),
            deadline=_share(deadline, 1, controller),
        )
        imagined.searches.append(found)
        _follow(controller, imagined, found.actions)
        return imagined
    towards = [number for number, count in enumerate(problem.actions) for _ in range(count or 0)]
    before = None
    for step, number in enumerate(towards):
        before = controller.plan_latent(
            imagined.latents[-1],
            imagined.states[-1],
            problem.targets[number],
            generator=generator_for(seed, step) if step else generator_for(seed),
            past=controller.past(torch.stack(imagined.latents), torch.stack(imagined.states)),
            before=before,
            deadline=_share(deadline, len(towards) - step, controller),
        )
        imagined.searches.append(before)
        _go_on(controller, imagined, before.actions[0], towards=number)
    return imagined


def _share(deadline: Deadline | None, searches: int, controller: Controller) -> Deadline | None:
    """The deadline of the next of so many searches, which leaves time for the prediction that follows it."""
    return None if deadline is None else Deadline(deadline.left / searches).earlier(controller.prediction_seconds)


def rank(problem: Problem, proposals: Tensor) -> tuple[Imagined, Tensor]:
    """Energies [n] of somebody else's action sequences [n, H, A], and what the model imagines of the best."""
    controller, imagined = problem.controller, Imagined([problem.latent], [problem.state])
    energies = controller.energy(problem.latent, problem.state, problem.targets[0], proposals)
    _follow(controller, imagined, proposals[energies.argmin()])
    return imagined, energies


def idle(problem: Problem, like: Imagined) -> Tensor:
    """The latent [H*W, D] that the model imagines after doing nothing as often as `like` acts."""
    imagined, controller = Imagined([problem.latent], [problem.state]), problem.controller
    still = torch.zeros(len(like.actions), len(problem.state))
    if problem.actions[0] is None:
        _follow(controller, imagined, still)
    else:
        for action in still:
            _go_on(controller, imagined, action, towards=0)
    return imagined.latents[-1]


def _follow(controller: Controller, imagined: Imagined, actions: Tensor) -> None:
    """Add all actions [H, A] as one rollout sees them."""
    predicted = controller.predict(imagined.latents[-1], imagined.states[-1], actions[None])[0]
    for action, latent in zip(actions.cpu(), predicted, strict=True):
        _add(controller, imagined, action, latent, towards=0)


def _go_on(controller: Controller, imagined: Imagined, action: Tensor, *, towards: int) -> None:
    """Add one action [A], seen with as many frames before it as the planner sees."""
    past = controller.past(torch.stack(imagined.latents), torch.stack(imagined.states))
    latent = controller.predict(imagined.latents[-1], imagined.states[-1], action[None, None], past=past)[0, 0]
    _add(controller, imagined, action.cpu(), latent, towards=towards)


def _add(controller: Controller, imagined: Imagined, action: Tensor, latent: Tensor, *, towards: int) -> None:
    imagined.states.append(controller.space.compose(imagined.states[-1], action))
    imagined.latents.append(latent)
    imagined.actions.append(action)
    imagined.towards.append(towards)


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
