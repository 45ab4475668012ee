"""Closed-loop reach in the tabletop from an image goal, beside a random policy and a perfect one on the same episodes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.statistics import share
from vjepa2cli.errors import PlanningError
from vjepa2cli.files import digest_json
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.closed_loop import PlannerPolicy, Policy, draw_episode, play
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.model_card import ModelCard, open_world_model
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import EvaluateConfig
from vjepa2cli.simulation.environment import Environment
from vjepa2cli.simulation.tabletop import ROBOT, Tabletop
from vjepa2cli.simulation.tasks import Reach

"""What `collect` calls the robot that is evaluated here."""
POLICIES = ("planner", "random", "perfect")

_DEFAULT = EvaluateConfig()
_RANDOM_STREAM = 1
_PLANNING_STREAM = 2


def evaluate(
    model: str | Path,
    out: Path,
    *,
    config: EvaluateConfig = _DEFAULT,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Play `config.episodes` reaches with the model and with the policies beside it; write the report `out`, videos next to it.

    `videos/episode_NNN.mp4` shows the observation beside the goal, `.png` is its film strip. Everything but the timing is a
    function of the model and the config. Raises PlanningError for a predictor that nobody trained or that moves another robot.
    """
    started = time.perf_counter()
    world, card = open_world_model(model, device=device)
    protocol = _protocol(card, config)
    controller = Controller(world, config.cem, space=card.space)
    task = Reach(distance=config.distance, tolerance=config.tolerance, scene=config.scene)
    environment = Tabletop(
        image_size=protocol["image_size"],
        rate=protocol["rate"],
        scene=config.scene,
    )
    rows: list[dict[str, Any]] = []
    seconds: list[float] = []
    progress.start("evaluate", total=config.episodes)
    try:
        for index in range(config.episodes):
            videos = out.parent / "videos" if index < config.num_videos else None
            row, taken = _episode(index, environment, task, world, controller, config=config, videos=videos)
            rows.append(row)
            seconds += taken
            progress.advance(fields={"success": sum(row["planner"]["success"] for row in rows) / len(rows)})
    finally:
        environment.close()
    progress.finish()
    origin = provenance("evaluate", config, inputs={"model": card.digest, "encoder": card.encoder_digest}, seed=config.seed)
    timing = {
        "seconds": round(time.perf_counter() - started, 2),
        "seconds_per_action": round(float(np.mean(seconds)), 4),
        "median_seconds_per_action": round(float(np.median(seconds)), 4),
    }
    return write_report(out, "evaluation", _body(card, protocol, rows), provenance=origin, timing=timing)


def _protocol(card: ModelCard, config: EvaluateConfig) -> dict[str, Any]:
    """Everything that a success rate depends on besides the model; what the model fixes, the tabletop is set to."""
    card.require_trained_predictor()
    if card.robot != ROBOT:
        raise PlanningError(
            f"{card.source}: its robot is {card.robot or 'unknown'!r}, and reach is played with {ROBOT!r}; give a model that was "
            "post-trained on what 'vjepa2 collect' records, or judge this one on recordings with 'vjepa2 validate'"
        )
    missing = next((name for name, value in (("crop", card.preprocessing.get("crop")), ("rate", card.rate)) if not value), None)
    if missing is not None:
        raise PlanningError(
            f"{card.source}: its config.json names no {missing}, so the tabletop cannot show it what it was trained on; "
            "post-train again with this version"
        )
    settings = config.model_dump(mode="json", exclude={"step", "num_videos"})
    return settings | {"image_size": card.preprocessing["crop"], "geometry": card.preprocessing["geometry"], "rate": card.rate}


def _episode(
    index: int,
    environment: Environment,
    task: Reach,
    world: WorldModel,
    controller: Controller,
    *,
    config: EvaluateConfig,
    videos: Path | None,
) -> tuple[dict[str, Any], list[float]]:
    """One start and goal with every policy: its row of the report, and the seconds of each planned action."""
    key, limit = (config.seed, index), config.cem.max_translation
    episode = task.sample(int(np.random.SeedSequence(key).generate_state(1)[0]))
    goal = task.begin(environment, episode)[1].frame
    rng = np.random.default_rng([*key, _RANDOM_STREAM])
    planner = PlannerPolicy(world, controller, world.encode(goal[None])[0], (*key, _PLANNING_STREAM))
    policies: dict[str, Policy] = {
        "planner": planner,
        "random": lambda _: np.concatenate([rng.uniform(-limit, limit, 3), np.zeros(4)]),
        "perfect": lambda observation: task.perfect_action(observation.state, episode, max_translation=limit),
    }
    played = {name: play(environment, task, episode, policies[name], num_actions=config.max_actions) for name in POLICIES}
    own = played["planner"]
    planner.look(own.observations[-1])
    row: dict[str, Any] = {
        "episode": index,
        "start": episode.start_state[:3].tolist(),
        "goal": episode.goal_state[:3].tolist(),
        **{name: {"distances": run.distances, "success": run.distances[-1] <= task.tolerance} for name, run in played.items()},
        "actions": own.actions.tolist(),
        "energies": planner.energies,
        "expected_energies": planner.expected_energies,
        "rollout": planner.rollout(own.actions),
        "pictures": None,
    }
    if videos is not None:
        row["pictures"] = draw_episode(videos, f"episode_{index:03d}", own, goal, fps=environment.rate)
    return row, planner.seconds


def _body(card: ModelCard, protocol: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    policies = {name: _summary([row[name] for row in rows]) for name in POLICIES}
    return {
        "encoder": card.encoder,
        "model": card.to_tree(),
        "protocol": protocol | {"fingerprint": digest_json(protocol)},
        "policies": policies,
        "energies": _means([row["energies"] for row in rows]),
        "expected_energies": _means([row["expected_energies"] for row in rows]),
        "rollout": {name: _means([row["rollout"][name] for row in rows]) for name in rows[0]["rollout"]},
        "verdict": verdict(policies, tolerance=protocol["tolerance"]),
        "episodes": list(rows),
    }


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The success rate with its interval, and the distances in metres, of one policy."""
    curves = np.array([run["distances"] for run in runs])
    ends = {"initial_distance": curves[:, 0], "final_distance": curves[:, -1]}
    return {
        "success": share(sum(run["success"] for run in runs), len(runs)),
        **{name: {"mean": float(values.mean()), "median": float(np.median(values))} for name, values in ends.items()},
        "distances": curves.mean(0).tolist(),
    }


def _means(curves: Sequence[Sequence[float]]) -> list[float]:
    """The mean over episodes of each step."""
    means: list[float] = np.mean(np.array(curves), axis=0).tolist()
    return means


def verdict(policies: dict[str, Any], *, tolerance: float) -> str:
    """One sentence on what the rates show."""
    own, random, perfect = (policies[name]["success"] for name in POLICIES)
    low, high = own["interval"]
    reached = (
        f"The planner reaches {own['successes']} of {own['n']} goals within {100 * tolerance:g} cm "
        f"({own['rate']:.0%}, 95 % interval {low:.0%} to {high:.0%}; random {random['rate']:.0%}, perfect {perfect['rate']:.0%})"
    )
    if low > random["interval"][1]:
        return f"{reached}: it beats the random policy."
    return f"{reached}: this does not show that it beats the random policy."
