"""A closed-loop evaluation as the page needs it, read from its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.reporting.sources import ENCODERS, Source
from vjepa2cli.reporting.statistics import Share

POLICIES = ("planner", "random", "perfect")


@dataclass(frozen=True)
class Policy:
    """How one policy fared: the mean distance to the goal over the actions and every episode's last one, in centimetres."""

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
    """One evaluation; `tolerance` in centimetres, the `protocol` all that a success rate depends on besides the model."""

    source: Source
    encoder: str
    tolerance: float
    protocol: Mapping[str, Any]
    policies: Mapping[str, Policy]
    energies: Sequence[float]
    expected_energies: Sequence[float]
    rollout: Mapping[str, Sequence[float]]
    pictures: Sequence[Pictures]

    @property
    def own(self) -> Policy:
        """The planner under test."""
        return self.policies["planner"]

    def comparable(self, other: "Evaluation") -> bool:
        """Whether the other one used the same goals, tolerance and number of actions."""
        return self.protocol.get("fingerprint") == other.protocol.get("fingerprint")


def read_evaluations(sources: Sequence[Source]) -> list[Evaluation]:
    """The evaluations among the sources, those of the trained encoder first."""
    found = [_read(source) for source in sources if source.kind == "evaluation"]
    return sorted(found, key=lambda evaluation: ENCODERS.index(evaluation.encoder))


def _read(source: Source) -> Evaluation:
    body = source.body
    episodes = body.get("episodes") or []
    return Evaluation(
        source=source,
        encoder=source.encoder,
        tolerance=float(body["protocol"]["tolerance"]) * 100,
        protocol=body["protocol"],
        policies={name: _policy(body["policies"][name], name, episodes) for name in POLICIES if name in body["policies"]},
        energies=body.get("energies") or [],
        expected_energies=body.get("expected_energies") or [],
        rollout=body.get("rollout") or {},
        pictures=[_pictures(row, source.folder) for row in episodes if row.get("pictures")],
    )


def _policy(summary: Mapping[str, Any], name: str, episodes: Sequence[Mapping[str, Any]]) -> Policy:
    finals = [row[name]["distances"][-1] * 100 for row in episodes if name in row]
    curve = [value * 100 for value in summary.get("distances") or []]
    return Policy(Share.of(summary["success"]["successes"], summary["success"]["n"]), curve, finals)


def _pictures(row: Mapping[str, Any], folder: Path) -> Pictures:
    drawn, own = row["pictures"], row["planner"]
    return Pictures(
        episode=row["episode"],
        reached=own["success"],
        final=own["distances"][-1] * 100,
        frames=drawn.get("frames") or [],
        strip=folder / drawn["filmstrip"],
        video=folder / drawn["video"],
    )
