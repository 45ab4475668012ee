"""`plan`: what to do from one observation, found in the model's imagination alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.errors import PlanningError
from vjepa2cli.files import digest_bytes, digest_json
from vjepa2cli.planning.cem import Energies
from vjepa2cli.planning.clock import Deadline
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.goals import Goal, Image, Pixels, as_goals, read_frame
from vjepa2cli.planning.imagination import nearest_frames
from vjepa2cli.planning.landscape import energy_map
from vjepa2cli.planning.model_card import ModelCard, open_world_model, read_state_space
from vjepa2cli.planning.problem import Imagined, Problem, check_state, encode, idle, rank, solve
from vjepa2cli.planning.proposals import read_proposals
from vjepa2cli.settings import PlanConfig


@dataclass(frozen=True)
class Extras:
    """What a plan shows besides its actions.

    `energy_map`: the energy around the plan. `latents` and `videos`, the stores that the model was trained on: the training
    frames nearest to what it imagines. `proposals`: a file of action sequences to be ranked, instead of a search.
    """

    energy_map: bool = False
    latents: Path | None = None
    videos: Path | None = None
    proposals: Path | None = None


_DEFAULT = PlanConfig()
_NOTHING_MORE = Extras()


@dataclass(frozen=True)
class Plan:
    """`actions` [n, A] to execute from the first, with what the model expects of them; `action_fields` names their numbers.

    Energies are mean |latent - goal|: `energies` of every iteration of the (first) search, `observed_energy` of the observation
    and the first goal, `idle_energy` after doing nothing as long, `final_energy` after the plan, both to the last goal;
    `expected_energies` after each action to the goal that it is for, whose numbers are `towards`. `scored` candidates were
    looked at; a search that was `cut_short` ended at the deadline. `seconds` is the time of loading, encoding and planning,
    `planning_seconds` that without loading. `extras` are the keys that `Extras` asked for.
    """

    actions: NDArray[np.float64]
    energies: tuple[Energies, ...]
    observed_energy: float
    idle_energy: float
    final_energy: float
    expected_energies: tuple[float, ...]
    towards: tuple[int, ...]
    scored: int
    cut_short: bool
    seconds: float
    planning_seconds: float
    action_fields: str
    extras: dict[str, Any] = field(default_factory=dict)

    def to_tree(self) -> dict[str, Any]:
        """The plan as plain JSON types, without the time it took."""
        return {
            "actions": self.actions.tolist(),
            "action_fields": self.action_fields,
            "energies": [energies._asdict() for energies in self.energies],
            "observed_energy": self.observed_energy,
            "idle_energy": self.idle_energy,
            "final_energy": self.final_energy,
            "expected_energies": list(self.expected_energies),
            "towards": list(self.towards),
            "scored": self.scored,
            "cut_short": self.cut_short,
            **self.extras,
        }


def plan(
    obs: Image,
    goal: Image | Goal | Sequence[Goal],
    *,
    model: str | Path,
    state: Sequence[float] | NDArray[np.floating] | None = None,
    config: PlanConfig = _DEFAULT,
    out: Path | None = None,
    device: torch.device | str = "cpu",
    budget_ms: float | None = None,
    extras: Extras = _NOTHING_MORE,
) -> Plan:
    """Plan actions that bring the robot from the image `obs` to the `goal`, each a path (of a video: its end) or uint8 [Y, X, 3].

    A goal without a number of actions is looked for `cem.horizon` actions ahead, in one search. Goals with numbers are pursued
    one after the other: for every action there is a search from the moment that the model imagines. `model` is the run directory
    of a post-training (or a released checkpoint), `state` the robot's numbers at the observation. With `budget_ms` the actions
    are known so many milliseconds after the images are, the model being loaded and warm. With `out`, the plan is written there
    as JSON. Raises PlanningError for a model that nobody trained and for a missing or malformed state, VideoError or InputError
    for images and proposals that cannot be read.
    """
    goals = as_goals(goal)
    space = read_state_space(model)
    current = check_state(state, space=space)
    observed, wanted = read_frame(obs, "obs"), [read_frame(each.image, "goal") for each in goals]
    proposals = None if extras.proposals is None else torch.from_numpy(read_proposals(extras.proposals, space.names))
    _check_together(goals, extras, budget_ms=budget_ms)
    began = time.perf_counter()
    world, card = open_world_model(model, device=device)
    card.require_trained()
    controller = Controller(world, config.cem, space=space)
    if budget_ms is not None:
        controller.warm_up(encode(world, observed, wanted)[0], current)
    ready = time.perf_counter()
    deadline = None if budget_ms is None else Deadline(budget_ms / 1000)
    latent, targets = encode(world, observed, wanted)
    problem = Problem(controller, latent, current, targets, tuple(each.actions for each in goals))
    more: dict[str, Any] = {} if budget_ms is None else {"budget_ms": budget_ms}
    if proposals is None:
        imagined = solve(problem, seed=config.seed, deadline=deadline)
    else:
        imagined, energies = rank(problem, proposals)
        more |= _ranking(energies, proposals, controller)
    actions = torch.stack(imagined.actions).cpu().numpy().astype(np.float64).round(7)
    planned = time.perf_counter()
    more |= _shown(problem, imagined, config, extras, card)
    made = _described(problem, imagined, actions, began=began, planning_seconds=planned - ready, extras=more)
    if out is not None:
        _write(out, made, observed, wanted, state=current, card=card, config=config)
    return made


def _check_together(goals: Sequence[Goal], extras: Extras, *, budget_ms: float | None) -> None:
    if budget_ms is not None and budget_ms <= 0:
        raise PlanningError(f"budget: {budget_ms:g} ms is no time; give more than 0")
    if extras.proposals is not None and (len(goals) > 1 or goals[0].actions is not None or budget_ms is not None):
        raise PlanningError("proposals: are ranked by one goal image, without a number of actions or a budget; leave those out")
    if (extras.latents is None) != (extras.videos is None):
        raise PlanningError("imagined frames: need both the latents and the video store that they were made of")


def _ranking(energies: Tensor, proposals: Tensor, controller: Controller) -> dict[str, Any]:
    """Proposals from the best to the worst; those `outside_box` hold an action that the planner itself would not try."""
    box = controller.actions
    outside = ((proposals < box.low[0]) | (proposals > box.high[0])).flatten(1).any(1).tolist()
    order = energies.argsort().tolist()
    return {
        "proposals": [
            {"proposal": number, "energy": float(energies[number]), "outside_box": bool(outside[number])} for number in order
        ]
    }


def _shown(problem: Problem, imagined: Imagined, config: PlanConfig, extras: Extras, card: ModelCard) -> dict[str, Any]:
    """The landscape and the nearest frames, where they are wanted."""
    more: dict[str, Any] = {}
    if extras.energy_map:
        ahead = problem.controller.config.horizon
        actions = imagined.searches[0].actions if imagined.searches else torch.stack(imagined.actions[:ahead])
        more["energy_map"] = energy_map(
            problem.controller, problem.latent, problem.state, problem.targets[0], actions, config=config.energy_map
        )
    if extras.latents is not None and extras.videos is not None:
        more["imagined"] = nearest_frames(torch.stack(imagined.latents), extras.latents, extras.videos, card=card)
    return more


def _described(
    problem: Problem,
    imagined: Imagined,
    actions: NDArray[np.float64],
    *,
    began: float,
    planning_seconds: float,
    extras: dict[str, Any],
) -> Plan:
    searches, targets, last = imagined.searches, problem.targets, problem.targets[-1]
    expected = [_distance(latent, targets[number]) for latent, number in zip(imagined.latents[1:], imagined.towards, strict=True)]
    return Plan(
        actions=actions,
        energies=searches[0].energies if searches else (),
        observed_energy=_distance(problem.latent, targets[0]),
        idle_energy=_distance(idle(problem, imagined), last),
        final_energy=_distance(imagined.latents[-1], last),
        expected_energies=tuple(expected),
        towards=tuple(imagined.towards),
        scored=sum(search.scored for search in searches) + len(extras.get("proposals", ())),
        cut_short=any(search.cut_short for search in searches),
        seconds=time.perf_counter() - began,
        planning_seconds=planning_seconds,
        action_fields=f"{problem.controller.space.describe()}; differences to the state before",
        extras=extras,
    )


def _write(
    out: Path, made: Plan, observed: Pixels, wanted: Sequence[Pixels], *, state: Tensor, card: ModelCard, config: PlanConfig
) -> None:
    goals = [_digest(image) for image in wanted]
    inputs = {
        "obs": _digest(observed),
        "goal": goals[0] if len(goals) == 1 else digest_json(goals),
        "model": card.digest,
        "encoder": card.encoder_digest,
    }
    body = made.to_tree() | {"state": state.tolist(), "model": card.to_tree()}
    timing = {"seconds": round(made.seconds, 3), "planning_seconds": round(made.planning_seconds, 4)}
    write_report(out, "plan", body, provenance=provenance("plan", config, inputs=inputs, seed=config.seed), timing=timing)


def _distance(latent: Tensor, goal: Tensor) -> float:
    return float((latent.float() - goal.float()).abs().mean())


def _digest(image: Pixels) -> str:
    return digest_bytes(repr(image.shape).encode(), np.ascontiguousarray(image).tobytes())
