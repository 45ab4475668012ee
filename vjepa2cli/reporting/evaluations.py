"""Closed-loop evaluations as the page needs them, one for each task and shift, read from their reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.reporting.sources import ENCODERS, Source
from vjepa2cli.reporting.statistics import Share

POLICIES = ("planner", "random", "expert", "cloning")
TASK_NAMES = {
    "reach": "Reaching goals",
    "grasp": "Grasping",
    "reach_with_object": "Reaching with an object",
    "pick_and_place": "Picking and placing",
    "push": "Pushing",
}
SHIFT_NAMES = {
    "none": "as trained",
    "distractors": "things that wander about",
    "light": "other light",
    "camera": "another camera",
    "objects": "unseen objects",
    "goal_light": "other light in the goal",
}


@dataclass(frozen=True)
class Policy:
    """How one policy fared: the mean distance to the goal over the actions and every episode's last one, in the task's unit."""

    share: Share
    curve: Sequence[float]
    finals: Sequence[float]


@dataclass(frozen=True)
class Pictures:
    """What an episode looked like: its film strip and its video, the frames that the strip shows, and how it ended."""

    episode: int
    reached: bool
    final: float
    frames: Sequence[int]
    strip: Path
    video: Path


@dataclass(frozen=True)
class Evaluation:
    """One task under one shift; `settings` are the task's, `unit` that of all distances (cm where the task says metres)."""

    source: Source
    encoder: str
    task: str
    shift: str
    settings: Mapping[str, Any]
    fingerprint: str
    unit: str
    tolerance: float | None
    policies: Mapping[str, Policy]
    energies: Sequence[float]
    expected_energies: Sequence[float]
    rollout: Mapping[str, Sequence[float]]
    pictures: Sequence[Pictures]

    @property
    def own(self) -> Policy:
        """The planner under test."""
        return self.policies["planner"]

    @property
    def title(self) -> str:
        """The task in words."""
        return TASK_NAMES.get(self.task, self.task.replace("_", " "))

    @property
    def scene(self) -> str:
        """The shift in words."""
        return SHIFT_NAMES.get(self.shift, self.shift.replace("_", " "))

    def comparable(self, other: "Evaluation") -> bool:
        """Whether the other one used the same goals, tolerance and number of actions."""
        return self.fingerprint == other.fingerprint


def read_evaluations(sources: Sequence[Source]) -> list[Evaluation]:
    """The evaluations among the sources, those of the trained encoder first, each with all of its tasks and shifts."""
    reports = sorted((source for source in sources if source.kind == "evaluation"), key=lambda each: ENCODERS.index(each.encoder))
    return [_read(source, result) for source in reports for result in source.body["results"]]


def by_task(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of each task, in the order in which tasks appear."""
    found: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        found.setdefault(evaluation.task, []).append(evaluation)
    return found


def _read(source: Source, result: Mapping[str, Any]) -> Evaluation:
    episodes = result.get("episodes") or []
    scale = 100.0 if result.get("unit", "m") == "m" else 1.0
    settings = result.get("settings") or {}
    return Evaluation(
        source=source,
        encoder=source.encoder,
        task=result["task"],
        shift=result["shift"],
        settings=settings,
        fingerprint=result["fingerprint"],
        unit="cm" if scale > 1 else str(result["unit"]),
        tolerance=float(settings["tolerance"]) * 100 if "tolerance" in settings else None,
        policies={
            name: _policy(result["policies"][name], name, episodes, scale) for name in POLICIES if name in result["policies"]
        },
        energies=result.get("energies") or [],
        expected_energies=result.get("expected_energies") or [],
        rollout=result.get("rollout") or {},
        pictures=[_pictures(row, source.folder, scale) for row in episodes if row.get("pictures")],
    )


def _policy(summary: Mapping[str, Any], name: str, episodes: Sequence[Mapping[str, Any]], scale: float) -> Policy:
    finals = [row[name]["distances"][-1] * scale for row in episodes if name in row]
    curve = [value * scale for value in summary.get("distances") or []]
    return Policy(Share.of(summary["success"]["successes"], summary["success"]["n"]), curve, finals)


def _pictures(row: Mapping[str, Any], folder: Path, scale: float) -> Pictures:
    drawn, own = row["pictures"], row["planner"]
    return Pictures(
        episode=row["episode"],
        reached=own["success"],
        final=own["distances"][-1] * scale,
        frames=drawn.get("frames") or [],
        strip=folder / drawn["filmstrip"],
        video=folder / drawn["video"],
    )
