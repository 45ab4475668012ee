"""Tasks in closed loop from image goals, beside other policies on the same episodes: success rates, and what they rest on."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import LatentStore, Shard
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.statistics import share, wilson_interval
from vjepa2cli.errors import ArtifactError, ConfigError, InputError
from vjepa2cli.files import digest_json
from vjepa2cli.planning.cloning import Clone, clone
from vjepa2cli.planning.journal import Journal, place_of
from vjepa2cli.planning.model_card import ModelCard, open_predictor
from vjepa2cli.planning.players import Job, Outcome, Player
from vjepa2cli.planning.protocol import Replay, fingerprint, open_suite, protocol_of, task_protocol
from vjepa2cli.processes import Crew
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import EvaluateConfig, ShiftName
from vjepa2cli.simulation.environment import Suite

POLICIES = ("planner", "random", "expert", "cloning")

_DEFAULT = EvaluateConfig()
_MORE = 10
"""Episodes that are added at a time until the interval is narrow enough."""
_LOST = "{}: a worker process was killed, perhaps for want of memory; run the same command again with fewer --workers"


def evaluate(
    model: str | Path,
    out: Path,
    *,
    config: EvaluateConfig = _DEFAULT,
    device: torch.device | str = "cpu",
    latents: Path | None = None,
    replay: Path | None = None,
    shard: Shard | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Path:
    """Play the tasks of `config` with the model and with the policies beside it; write the report `out`, videos next to it.

    A killed run goes on with the episodes that it had not finished. With a `shard` only that part of the episodes is played, and
    kept beside `out`, at the path that is returned; the run without one takes what such jobs have played of the same model and
    config, and plays what is left.

    With `latents`, the store that the model was trained on, a clone of the recordings plays as well. With `replay`, the config is
    that of an earlier report, and the report says whether its episodes came again. `videos/<task>_<shift>_NNN.mp4` shows the
    camera, the goal in its corner and the energy, `.png` is a film strip. Everything but the timing is a function of model and
    config (and of the threads of a process): not of `workers`.

    Raises PlanningError for a predictor that nobody trained or that moves another robot, StaleArtifactError where a replay was
    not made with this model and environment.
    """
    started = time.perf_counter()
    before = None if replay is None else Replay.read(replay)
    if before is not None:
        config = before.config.model_copy(update={"num_videos": config.num_videos})
    card = open_predictor(model)[1]
    suite = open_suite(card, config, config.shifts[0])
    suite.environment.close()
    _check_tasks(suite, config)
    inputs = {"model": card.digest, "encoder": card.encoder_digest}
    copied = None if latents is None else _clone(latents, card, config, inputs)
    if before is not None:
        before.check(inputs, suite.version)
    threads = None if workers == 1 else max(1, torch.get_num_threads() // workers)
    start = partial(Player, model, config, str(device), copied, threads)
    common = protocol_of(card, config, suite)
    origin = provenance("evaluate", config, inputs=inputs, seed=config.seed)
    key = digest_json([origin, common, before and before.body["digest"]])
    with Crew(start, processes=workers, on_loss=_LOST.format(out)) as crew, Journal(out, key=key, shard=shard) as journal:
        played = _Episodes(crew, journal, config, out.parent / "videos", progress)
        if shard is not None:
            played.part(shard)
            return journal.keep()
        results, seconds = _play_all(played, common, suite, config)
    compared = None if before is None else before.compare(results)
    body = {
        "encoder": card.encoder,
        "model": card.to_tree(),
        "protocol": common,
        "fingerprint": fingerprint(results, inputs),
        "results": results,
        "cloning": None if copied is None else copied.report,
        "replay": compared,
        "verdict": "\n".join([*(result["verdict"] for result in results), *_replayed(compared)]),
    }
    path = write_report(out, "evaluation", body, provenance=origin, timing=_timing(started, seconds))
    journal.discard()
    return path


def _timing(started: float, seconds: Sequence[float]) -> dict[str, float]:
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "seconds_per_action": round(float(np.mean(seconds)), 4),
        "median_seconds_per_action": round(float(np.median(seconds)), 4),
    }


class _Episodes:
    """Plays episodes that nobody has played yet, and keeps them in the journal."""

    def __init__(
        self, crew: Crew[Job, Outcome], journal: Journal, config: EvaluateConfig, videos: Path, progress: Progress
    ) -> None:
        self._crew, self._journal, self._config, self._videos, self._progress = crew, journal, config, videos, progress
        self._pairs = [(task, shift) for shift in config.shifts for task in config.tasks]
        self._num_successes = self._num_played = 0

    def part(self, shard: Shard) -> None:
        """Every so manieth episode of those that are played in any case."""
        config = self._config
        jobs = [job for task, shift in self._pairs for job in self._jobs(task, shift, range(config.episodes_of(task)))]
        mine = jobs[shard.index :: shard.count]
        self._progress.start("evaluate", total=len(mine))
        self._outcomes(mine)
        self._progress.finish()

    def all(self) -> Iterator[tuple[str, ShiftName, list[Outcome]]]:
        """Every task under every shift with as many outcomes as it needs."""
        self._progress.start("evaluate", total=sum(self._config.episodes_of(task) for task, _ in self._pairs))
        for task, shift in self._pairs:
            done: list[Outcome] = []
            # How many depends on their outcomes alone, not on which came first.
            for first, last in _rounds(self._config, task):
                if done and _narrow_enough(done, self._config):
                    break
                done += self._outcomes(self._jobs(task, shift, range(first, last)))
            yield task, shift, done
        self._progress.finish()

    def _jobs(self, task: str, shift: ShiftName, indices: range) -> list[Job]:
        return [Job(task, shift, index, self._videos if index < self._config.num_videos else None) for index in indices]

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        known = self._journal.known
        left = [job for job in jobs if place_of(job) not in known]
        for job in jobs:
            if place_of(job) in known:
                self._journal.add(job, known[place_of(job)])
                self._count(known[place_of(job)])
        for job, outcome in self._crew.each(left):
            self._journal.add(job, outcome)
            self._count(outcome)
        return [known[place_of(job)] for job in jobs]

    def _count(self, outcome: Outcome) -> None:
        self._num_played += 1
        self._num_successes += outcome.row["planner"]["success"]
        self._progress.advance(fields={"success": self._num_successes / self._num_played})


def _play_all(
    played: _Episodes, common: dict[str, Any], suite: Suite, config: EvaluateConfig
) -> tuple[list[dict[str, Any]], list[float]]:
    """The result of every task under every shift, and the seconds of all planned actions."""
    results, seconds = [], []
    for task, shift, outcomes in played.all():
        seconds += [second for outcome in outcomes for second in outcome.seconds]
        protocol = task_protocol(common, config, task, shift)
        results.append(_result(protocol, suite.tasks[task].unit, [outcome.row for outcome in outcomes]))
    return results, seconds


def _check_tasks(suite: Suite, config: EvaluateConfig) -> None:
    unknown = next((name for name in config.tasks if name not in suite.tasks), None)
    if unknown is not None:
        raise ConfigError(f"tasks: {config.environment} has no task {unknown!r}; it has {', '.join(suite.tasks)}")


def _clone(latents: Path, card: ModelCard, config: EvaluateConfig, inputs: dict[str, str]) -> Clone:
    """Learn to copy the recordings; their digest becomes one of the `inputs`."""
    store = LatentStore.open(latents)
    if store.encoder_digest != card.encoder_digest:
        raise ArtifactError(
            f"{latents}: holds latents of another encoder ({store.encoder_digest[:12]}) than that of {card.source} "
            f"({card.encoder_digest[:12]}); name the store that the model was trained on"
        )
    train, val = store.of_split("train"), store.of_split("val")
    if not train:
        raise InputError(f"{latents}: has no training episodes to copy")
    inputs["latents"] = store.digest
    return clone(store, train, val, config.cloning)


def _rounds(config: EvaluateConfig, task: str) -> Iterator[tuple[int, int]]:
    """First and last index of the episodes that are played together, one after the other."""
    least = config.episodes_of(task)
    yield 0, least
    most = config.max_episodes or least
    for first in range(least, most, _MORE):
        yield first, min(first + _MORE, most)


def _narrow_enough(done: Sequence[Outcome], config: EvaluateConfig) -> bool:
    low, high = wilson_interval(sum(outcome.row["planner"]["success"] for outcome in done), len(done))
    return high - low <= config.interval_width


def _result(protocol: dict[str, Any], unit: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What one task under one shift came to."""
    policies = {name: _summary([row[name] for row in rows]) for name in POLICIES if name in rows[0]}
    return {
        **protocol,
        "unit": unit,
        "policies": policies,
        "energies": _means([row["energies"] for row in rows]),
        "expected_energies": _means([row["expected_energies"] for row in rows]),
        "rollout": {name: _means([row["rollout"][name] for row in rows]) for name in rows[0]["rollout"]},
        "verdict": verdict(protocol["task"], protocol["shift"], policies),
        "episodes": list(rows),
    }


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The success rate with its interval, and the distances, of one policy."""
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


def verdict(task: str, shift: ShiftName, policies: dict[str, Any]) -> str:
    """One sentence on what the rates show."""
    own = policies["planner"]["success"]
    low, high = own["interval"]
    beside = ", ".join(f"{name} {policies[name]['success']['rate']:.0%}" for name in POLICIES[1:] if name in policies)
    where = f"{task.replace('_', ' ')}" + (f", {shift.replace('_', ' ')} shifted" if shift != "none" else "")
    rate = f"{own['rate']:.0%}, 95 % interval {low:.0%} to {high:.0%}; {beside}"
    done = f"{where}: the planner succeeds in {own['successes']} of {own['n']} ({rate})"
    if low > policies["random"]["success"]["interval"][1]:
        return f"{done}: it beats the random policy."
    return f"{done}: this does not show that it beats the random policy."


def _replayed(compared: dict[str, Any] | None) -> list[str]:
    if compared is None:
        return []
    if compared["first_difference"] is None:
        return ["replay: the same episodes, number by number."]
    return [f"replay: not the same episodes; the first that differs is {compared['first_difference']}."]
