"""What a page is made of: reports, run directories, stores and collections, read and checked, each with where it lies."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli import config as configs
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.errors import ArtifactError, Vjepa2Error
from vjepa2cli.files import read_json
from vjepa2cli.settings import TrainingConfig

RUN_KINDS = ("pretrain", "posttrain", "probe")
ENCODERS = ("trained", "untrained", "pixels")
_SECONDS_UNTIL_SILENT = 60.0

_REQUIRED = {
    "pretrain": ("steps", "evaluations", "final.loss", "final.rank", "final.rank_initial", "final.std"),
    "posttrain": ("steps", "evaluations", "encoder.kind", "final.teacher_forced", "final.copy"),
    "probe": ("classes", "chance", "results"),
    "evaluation": ("encoder", "results"),
    "validation": ("encoder", "split", "prediction", "ranking", "numbers", "inversion", "familiarity", "capabilities", "caveats"),
    "collection": ("episodes",),
    "plan": ("energies", "actions", "observed_energy", "idle_energy", "final_energy"),
}
_WRITTEN_BY = {
    "pretrain": "'vjepa2 pretrain'",
    "posttrain": "'vjepa2 posttrain'",
    "probe": "'vjepa2 probe'",
    "evaluation": "'vjepa2 evaluate'",
    "validation": "'vjepa2 validate'",
    "collection": "'vjepa2 collect'",
    "plan": "'vjepa2 plan'",
}


@dataclass(frozen=True)
class Source:
    """One input of the page; `name` is its path as seen from the page, `ended` whether its step came to its end.

    `running` is whether somebody is at it.
    """

    kind: str
    path: Path
    name: str
    body: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...] = ()
    ended: bool = True
    running: bool = False

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made; empty where it does not say."""
        return self.body.get("provenance") or {}

    @property
    def timing(self) -> Mapping[str, Any]:
        """Seconds by part."""
        return self.body.get("timing") or {}

    @property
    def encoder(self) -> str:
        """`trained`, `untrained` or `pixels`: which encoder this is about."""
        named = self.body.get("encoder")
        kind = named.get("kind", "trained") if isinstance(named, Mapping) else named
        return kind if kind in ENCODERS else "trained"

    @property
    def folder(self) -> Path:
        """The folder that paths in the body are relative to."""
        return self.path if self.path.is_dir() else self.path.parent


def gather(inputs: Sequence[Path], *, page: Path) -> list[Source]:
    """Read every input once, in the order given; raises ArtifactError for one that is absent, damaged, or none of ours."""
    if not inputs:
        raise ArtifactError(
            "report: no inputs; give run directories and report files, such as results/pretrain results/evaluate/report.json"
        )
    found: dict[Path, Source] = {}
    for path in inputs:
        source = _read(path, page)
        found.setdefault(source.path.resolve(), source)
    return list(found.values())


def of_kind(sources: Sequence[Source], kind: str) -> list[Source]:
    """The sources of one kind: those about the trained encoder first, then its baselines."""
    return sorted((source for source in sources if source.kind == kind), key=lambda source: ENCODERS.index(source.encoder))


def _read(path: Path, page: Path) -> Source:
    if path.is_dir():
        return _read_folder(path, page)
    if not path.exists():
        raise ArtifactError(
            f"{path}: no such file or folder; give run directories, *.json reports, *.zarr stores or *.h5 latents"
        )
    if path.suffix == ".h5":
        return _read_latents(path, page)
    if path.suffix != ".json":
        raise ArtifactError(f"{path}: cannot be shown; give run directories, *.json reports, *.zarr stores or *.h5 latents")
    return _read_json(path, page)


def _read_folder(path: Path, page: Path) -> Source:
    for name in ("report.json", "collection.json"):
        if (path / name).is_file():
            return _read_json(path / name, page)
    if (path / "zarr.json").is_file():
        return _read_store(path, page)
    if (path / "config.yaml").is_file() and (path / "metrics.jsonl").is_file():
        return _read_unfinished(path, page)
    raise ArtifactError(
        f"{path}: no report.json, collection.json, zarr.json or metrics.jsonl there; give a run, a collection or a store"
    )


def _read_json(path: Path, page: Path) -> Source:
    if path.name.endswith(".zarr.json"):
        return _read_store(path.with_suffix(""), page)
    body = read_report(path)
    kind = str(body.get("kind"))
    if kind not in _REQUIRED:
        raise ArtifactError(f"{path}: is of kind {kind!r}, which has no place on the page; shown are {', '.join(_REQUIRED)}")
    for key in _REQUIRED[kind]:
        _require(body, key, path=path, kind=kind)
    metrics = _read_metrics(path.parent / "metrics.jsonl") if kind in RUN_KINDS else ()
    return Source(kind, path, _name(path, page), body, metrics)


def _read_store(path: Path, page: Path) -> Source:
    """A video store, or the one that the summary `X.zarr.json` beside it tells of."""
    from vjepa2cli.artifacts.video_store import VideoStore

    store = VideoStore.open(path)
    entries = store.entries
    body = {
        "digest": store.digest,
        "provenance": store.provenance,
        "videos": {split: sum(entry.split == split for entry in entries) for split in ("train", "val")},
        "frames": sum(entry.num_frames for entry in entries),
        "seconds": sum(entry.num_frames / entry.fps for entry in entries if entry.fps),
        "sizes": sorted({f"{entry.width}×{entry.height}" for entry in entries}),
        "trajectories": sum(entry.has_states for entry in entries),
        "robots": sorted({entry.robot for entry in entries if entry.robot}),
        "windows": sum(len(entry.windows) for entry in entries),
        "labels": store.labels,
        "sources": {entry.source: entry.source_digest for entry in entries},
        "refused": store.refused,
        "robot": store.robot_checks,
    }
    return Source("store", path, _name(path, page), body)


def _read_latents(path: Path, page: Path) -> Source:
    """A latent store: it links a world model to the recordings that it learnt from."""
    from vjepa2cli.artifacts.latent_store import LatentStore

    store = LatentStore.open(path)
    body = {"digest": store.digest, "provenance": store.header.provenance, "encoder": store.encoder_source.partition(":")[0]}
    store.close()
    return Source("latents", path, _name(path, page), body)


def _read_unfinished(path: Path, page: Path) -> Source:
    """A run directory whose run has not ended: what its config and its metrics say so far."""
    try:
        config = configs.load_any(path / "config.yaml")
    except Vjepa2Error as error:
        raise ArtifactError(f"{path}: its config cannot be read: {error}") from None
    if not isinstance(config, TrainingConfig):
        raise ArtifactError(f"{path}: holds no report.json and its config is for {config.step!r}, which is no training")
    metrics = _read_metrics(path / "metrics.jsonl")
    evaluations = [{"step": row["step"], **row["eval"]} for row in metrics if "eval" in row]
    known = path / "provenance.json"
    body = {
        "steps": config.steps,
        "evaluations": evaluations,
        "final": evaluations[-1] if evaluations else {},
        "rollbacks": [row["rollback"] for row in metrics if "rollback" in row],
        "provenance": read_json(known) if known.is_file() else {},
    }
    return Source(config.step, path, _name(path, page), body, metrics, ended=False, running=_is_held(path / ".lease"))


def _is_held(lease: Path) -> bool:
    """Whether a training has this lease: it empties it when it ends, and changes it every few seconds until then."""
    if not lease.is_file() or not lease.read_text(encoding="utf-8"):
        return False
    return time.time() - lease.stat().st_mtime < _SECONDS_UNTIL_SILENT


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines of metrics.jsonl by step; a last line that a kill cut short is left out. Empty where there is no file."""
    if not path.is_file():
        return ()
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"]), **row})
        except (ValueError, TypeError, KeyError):
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ArtifactError(f"{path}: line {number} is not a metric; the run that wrote it must be repeated") from None
    return tuple(rows)


def _require(body: Mapping[str, Any], key: str, *, path: Path, kind: str) -> None:
    node: Any = body
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise ArtifactError(f"{path}: a {kind} report without {key!r}; write it again by {_WRITTEN_BY[kind]} of this version")
        node = node[part]


def _name(path: Path, page: Path) -> str:
    """The path as seen from the page's folder, so that a whole tree of results may move."""
    return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()
