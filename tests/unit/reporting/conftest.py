"""A small tree of results with invented numbers, written the way the steps write theirs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli import config as configs
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.statistics import share, wilson_interval
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter, Window
from vjepa2cli.data.video import write_image, write_video
from vjepa2cli.files import digest_bytes
from vjepa2cli.planning.validation.capabilities import judge
from vjepa2cli.reporting import report
from vjepa2cli.settings import (
    CollectConfig,
    EvaluateConfig,
    IngestConfig,
    PosttrainConfig,
    PretrainConfig,
    ProbeConfig,
    ReachConfig,
    ReportConfig,
    StepConfig,
    ValidateConfig,
)

STEPS = 60
HORIZON = 8
ENCODERS = ("trained", "untrained", "pixels")


@dataclass
class Results:
    """A small tree of results with invented numbers, written the way the steps write theirs."""

    root: Path
    reached: Mapping[str, int]
    episodes: int = 50
    fingerprints: Mapping[str, str] | None = None
    more_results: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda _: []

    def write(self) -> "Results":
        self.store_digest = self._store()
        self._collection()
        self._pretrain()
        self._probe()
        for kind in self.reached:
            self._posttrain(kind)
            self._validate(kind)
            self._evaluate(kind)
        return self

    @property
    def inputs(self) -> list[Path]:
        """As the workflow passes them."""
        verdicts = [
            path
            for kind in self.reached
            for path in (self.root / f"posttrain/{kind}/report.json", self.root / f"validate/{kind}.json")
        ]
        evaluations = [self.root / f"evaluate/{kind}/report.json" for kind in self.reached]
        data = [self.root / "recordings/collection.json", self.root / "robot.zarr"]
        return [*data, self.root / "pretrain", self.root / "probe/report.json", *verdicts, *evaluations]

    def page(self, *inputs: Path, title: str = "report") -> str:
        out = report(inputs or self.inputs, self.root / "report.html", config=ReportConfig(title=title))
        return out.read_text(encoding="utf-8")

    def _run(
        self, name: str, config: StepConfig, kind: str, body: dict[str, Any], rows: Sequence[dict[str, Any]], **inputs: str
    ) -> None:
        folder = self.root / name
        folder.mkdir(parents=True)
        configs.save(config, folder / "config.yaml")
        origin = provenance(config.step, config, inputs=inputs, seed=0)
        (folder / "provenance.json").write_text(json.dumps(origin), encoding="utf-8")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_report(folder / "report.json", kind, body, provenance=origin, timing={"seconds": 12.5})

    def _store(self) -> str:
        writer = VideoStoreWriter.open(self.root / "robot.zarr", {"codec": "zstd", "shard_frames": 8})
        for index in range(4):
            with writer.entry(f"episode_{index:05d}") as entry:
                for frame in range(4):
                    entry.append(frame / 4, frame, np.full((16, 16, 3), 40 * index, np.uint8))
                name, window = f"episode_{index:05d}", Window(0, 4, ("up", "down")[index % 2])
                digest = digest_bytes(bytes([index]))
                entry.finish(Description(name, digest, name, 4.0, robot="vjepa2cli-tabletop", windows=(window,)))
        refused = [{"source": "notes.mp4", "reason": "a text file, <not> a video"}]
        splits = {f"episode_{index:05d}": {"split": "val" if index == 3 else "train", "weight": None} for index in range(4)}
        origin = provenance("ingest", IngestConfig(), inputs={"sources": digest_bytes(b"sources")})
        return writer.finalise(splits, refused=refused, provenance=origin).digest

    def _collection(self) -> None:
        (self.root / "recordings").mkdir()
        body = {
            "episodes": {f"episode_{index:05d}": digest_bytes(bytes([index])) for index in range(4)},
            "motion_windows": {"up": 2, "down": 2},
        }
        origin = provenance("collect", CollectConfig(), inputs={}, seed=0)
        write_report(self.root / "recordings/collection.json", "collection", body, provenance=origin)

    def _pretrain(self, *, final_rank: float = 40.2, final_loss: float = 0.36) -> None:
        rng = np.random.default_rng(0)
        curve = final_loss + 0.4 * np.exp(-np.arange(STEPS + 1) / 15)
        evaluations = [
            {"step": step, "loss": float(curve[step]), "rank": 71.0 + (final_rank - 71.0) * step / STEPS, "std": 0.7}
            for step in range(0, STEPS + 1, 10)
        ]
        rows = [
            {"step": step, "loss": float(curve[step] + rng.normal(0, 0.02)), "lr": 1e-3, "seconds": 0.2}
            for step in range(1, STEPS + 1)
        ]
        last = evaluations[-1]
        body = {
            "steps": STEPS,
            "encoder": {"embed_dim": 24, "digest": digest_bytes(b"trained")},
            "final": {"loss": last["loss"], "rank": last["rank"], "rank_initial": 71.0, "std": 0.7},
            "evaluations": evaluations,
        }
        config = PretrainConfig(steps=STEPS)
        self._run("pretrain", config, "pretrain", body, rows, videos=self.store_digest)

    def _posttrain(self, kind: str) -> None:
        level = {"trained": 0.12, "untrained": 0.13, "pixels": 0.15}[kind]
        evaluations = [
            {
                "step": step,
                "teacher_forced": level + 0.05 * 2.0 ** (-step / 10),
                "rollout": level * 1.2 + 0.05 * 2.0 ** (-step / 10),
                "copy": 0.169,
                "shuffled_actions": level + 0.05,
            }
            for step in range(0, STEPS + 1, 10)
        ]
        body = {
            "steps": STEPS,
            "encoder": {"kind": kind, "source": "pretrain", "digest": digest_bytes(kind.encode())},
            "evaluations": evaluations,
            "final": evaluations[-1],
            "digest_model": digest_bytes(b"model", kind.encode()),
        }
        rows = [{"step": step, "loss": 0.2, "seconds": 0.3} for step in range(1, STEPS + 1)]
        inputs = {"latents": digest_bytes(b"latents", kind.encode()), "encoder": digest_bytes(kind.encode())}
        self._run(f"posttrain/{kind}", PosttrainConfig(steps=STEPS), "posttrain", body, rows, **inputs)

    def _probe(self, correct: Mapping[str, int] | None = None) -> None:
        results = []
        for kind, right in (correct or {"trained": 88, "untrained": 71, "pixels": 40}).items():
            up = right // 2
            results.append(
                {
                    "encoder": kind,
                    "correct": right,
                    "total": 100,
                    "accuracy": right / 100,
                    "interval": list(wilson_interval(right, 100)),
                    "per_class": {"up": {"correct": up, "total": 50}, "down": {"correct": right - up, "total": 50}},
                    "head": 0,
                    "evaluations": [{"step": step, "accuracy_0": right / 100 * step / STEPS} for step in range(0, STEPS + 1, 20)],
                }
            )
        body = {
            "classes": ["up", "down"],
            "chance": 0.5,
            "chance_meaning": "always naming the most frequent class",
            "results": results,
        }
        write_report(
            self.root / "probe/report.json",
            "probe",
            body,
            provenance=provenance(
                "probe", ProbeConfig(), inputs={"videos": self.store_digest, "trained": digest_bytes(b"trained")}, seed=0
            ),
            timing={"trained": 4.0},
        )

    def _validate(self, kind: str, *, beats_copy: bool = True, uses_actions: bool = True) -> None:
        prediction, ranking = [], []
        for step in range(1, 5):
            copy = 0.17 + 0.03 * step
            model = copy * (0.7 if beats_copy else 1.02)
            gap = copy - model
            others = {"copy": copy, "no_action": copy, "shuffled": model * 1.2, "one_step": model / (0.9 + 0.1 * step)}
            prediction.append(
                {
                    "steps": step,
                    "error": {"model": model, **others},
                    "below_copy": {"mean": gap, "interval": [gap - 0.01, gap + 0.01]},
                    "below_shuffled": {"mean": model * 0.2, "interval": [0.01, 0.05]},
                    "true_beats_shuffled": share(60 if uses_actions else 33, 64),
                    "drift": 0.9 + 0.1 * step,
                }
            )
            place = {"mean": 0.95, "median": 0.97, "interval": [0.9, 0.98]}
            ranking.append({"steps": step, "percentile": place, "rank": {"median": 2.0, "of": 65}, "first": 9})
        body = {
            "encoder": kind,
            "model": {"trained_steps": STEPS},
            "split": "val",
            "num_windows": 64,
            "num_episodes": 8,
            "seen_in_training": 0,
            "rate": 4.0,
            "prediction": prediction,
            "ranking": ranking,
            "numbers": self._numbers(),
            "inversion": {"count": 24, "outside_box": 0, "numbers": {axis: self._recovered(axis) for axis in "xyz"}},
            "landscapes": self._landscapes(),
            "familiarity": {
                "within": 0.94,
                "training": {"median": 0.4},
                "rollout": [{"steps": step, "imagined": 0.4 + 0.01 * step, "recorded": 0.41} for step in range(1, 5)],
            },
            "film": self._film(),
        }
        body |= judge(body, config=ValidateConfig())
        inputs = {"latents": digest_bytes(b"latents", kind.encode()), "model": digest_bytes(b"model", kind.encode())}
        origin = provenance("validate", ValidateConfig(), inputs=inputs, seed=0)
        write_report(self.root / f"validate/{kind}.json", "validation", body, provenance=origin, timing={"seconds": 3.0})

    @staticmethod
    def _numbers() -> list[dict[str, Any]]:
        """Seven of them, of which the roll never moves."""
        values = np.linspace(-0.1, 0.1, 5)
        sweep = {
            "moves": 30,
            "values": values.tolist(),
            "forward": np.abs(values - 0.05).tolist(),
            "backward": np.abs(values + 0.05).tolist(),
            "sign": share(28, 30),
            "correlation": 0.9,
            "left_out": {"mean": 0.01, "interval": [0.005, 0.015]},
        }
        units = dict.fromkeys("xyz", "m") | dict.fromkeys(("roll", "pitch", "yaw"), "rad") | {"gripper": "share"}
        return [
            {"name": name, "unit": unit, "far": 0.07, "sweep": None if name == "roll" else sweep} for name, unit in units.items()
        ]

    @staticmethod
    def _recovered(axis: str) -> dict[str, Any]:
        rng = np.random.default_rng(ord(axis))
        true = rng.uniform(-0.06, 0.06, 24)
        found = true + rng.normal(0, 0.008, 24)
        return {
            "error": {"mean": 0.006, "interval": [0.005, 0.007]},
            "magnitude": 0.03,
            "below_nothing": {"mean": 0.024, "interval": [0.02, 0.03]},
            "sign": share(23, 24),
            "correlation": 0.95,
            "pairs": [[a, b] for a, b in zip(true.tolist(), found.tolist(), strict=True)],
        }

    @staticmethod
    def _landscapes() -> list[dict[str, Any]]:
        values = np.linspace(-0.075, 0.075, 5)
        energies = (values[:, None] - 0.03) ** 2 + (values[None] + 0.03) ** 2
        drawn = {"values": [values.tolist()] * 2, "energies": energies.tolist(), "planned": [-0.03, 0.03], "units": ["m", "m"]}
        return [{"move": 3, "axes": list(axes), **drawn} for axes in ("xy", "xz", "yz")]

    def _film(self) -> dict[str, Any]:
        """Of the held-out episode, in frames of the others."""
        rows = [
            {"episode": "episode_00000", "key": "episode_00000", "frame": frame, "distance": 0.1 * frame} for frame in range(3)
        ]
        recorded = [{"episode": "episode_00003", "key": "episode_00003", "frame": frame} for frame in range(3)]
        return {
            "episode": "episode_00003",
            "first_step": 0,
            "videos": self.store_digest,
            "recorded": recorded,
            "known": rows,
            "imagined": rows[1:],
        }

    def _evaluate(self, kind: str) -> None:
        folder = self.root / "evaluate" / kind
        config = EvaluateConfig(episodes=self.episodes, reach=ReachConfig(actions=HORIZON))
        reached = {"planner": self.reached[kind], "random": 0, "expert": self.episodes}
        rng = np.random.default_rng(ENCODERS.index(kind))
        rows = [self._episode(index, folder, reached, rng) for index in range(self.episodes)]
        policies = {}
        for name, successes in reached.items():
            curves = np.array([row[name]["distances"] for row in rows])
            policies[name] = {"success": share(successes, self.episodes), "distances": curves.mean(0).tolist()}
        fingerprint = (self.fingerprints or {}).get(kind, "one protocol")
        result = {
            "task": "reach",
            "shift": "none",
            "unit": "m",
            "settings": {"tolerance": 0.04, "distance": [0.1, 0.2], "actions": HORIZON},
            "fingerprint": fingerprint,
            "policies": policies,
            "energies": (0.6 * np.exp(-np.arange(HORIZON + 1) / 3) + 0.15).tolist(),
            "expected_energies": (0.6 * np.exp(-np.arange(1, HORIZON + 1) / 2.6) + 0.14).tolist(),
            "rollout": {"error": np.linspace(0.1, 0.3, HORIZON).tolist(), "copy_error": np.linspace(0.2, 0.6, HORIZON).tolist()},
            "episodes": rows,
        }
        body = {"encoder": kind, "results": [result, *self.more_results(result)]}
        inputs = {"model": digest_bytes(b"model", kind.encode()), "encoder": digest_bytes(kind.encode())}
        timing = {"seconds": 120.0, "seconds_per_action": 0.21}
        origin = provenance("evaluate", config, inputs=inputs, seed=config.seed)
        write_report(folder / "report.json", "evaluation", body, provenance=origin, timing=timing)

    def _episode(self, index: int, folder: Path, reached: Mapping[str, int], rng: np.random.Generator) -> dict[str, Any]:
        row: dict[str, Any] = {"episode": index, "pictures": None}
        start = rng.uniform(0.1, 0.2)
        for name, successes in reached.items():
            end = rng.uniform(0.004, 0.035) if index < successes else rng.uniform(0.05, 0.2)
            row[name] = {
                "distances": (end + (start - end) * np.exp(-np.arange(HORIZON + 1) / 1.5)).tolist(),
                "success": index < successes,
            }
            row[name]["distances"][-1] = end
        if index < 2:
            (folder / "videos").mkdir(parents=True, exist_ok=True)
            frames = np.repeat(rng.integers(0, 255, (3, 4, 12, 3), dtype=np.uint8), 24, axis=1).repeat(24, axis=2)[:, :96]
            write_image(folder / f"videos/episode_{index:03d}.png", np.concatenate(list(frames), axis=1))
            write_video(folder / f"videos/episode_{index:03d}.mp4", frames, fps=4)
            name = f"videos/episode_{index:03d}"
            row["pictures"] = {"filmstrip": f"{name}.png", "video": f"{name}.mp4", "frames": [0, 4, 8]}
        return row


REACHED = {"trained": 47, "untrained": 44, "pixels": 9}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A whole tree that tests read and do not change."""
    return Results(tmp_path_factory.mktemp("results"), REACHED).write()


@pytest.fixture(scope="session")
def page(results: Results) -> str:
    """The page of that tree."""
    return results.page()


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    """`make_results(root, reached)` writes a tree of its own; `reached` holds the goals reached by kind of encoder."""
    return lambda root, reached=REACHED, **changes: Results(root, reached, **changes).write()
