"""Ingest: videos, images and robot recordings of any origin into one video store, decoded once, by several processes, resumable.

What the store holds depends on the sources and the config alone, not on the number of workers or on interruptions.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from vjepa2cli import config as configs
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.video_store import VideoStore, VideoStoreWriter
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa2cli.errors import InputError, StaleArtifactError
from vjepa2cli.files import digest_json
from vjepa2cli.ingestion.copies import Entries
from vjepa2cli.ingestion.decisions import Decisions, decide, unweighted_beside_weighted
from vjepa2cli.ingestion.taking import Task
from vjepa2cli.ingestion.verification import verify
from vjepa2cli.ingestion.workers import run_here, run_in_processes
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.recordings.places import Wanted
from vjepa2cli.recordings.sources import Found, Source, find_sources
from vjepa2cli.settings import IngestConfig

__all__ = ["IngestSummary", "begin", "ingest", "ingest_part", "verify"]


class IngestSummary(TypedDict):
    """What the finished store holds; equal stores give equal summaries.

    `accepted` lists every entry; `notes` says what had to be mended, `findings` what a user may want to leave out, and `refused`
    what is not in the store. `images_passed_over` counts images in folders that hold videos too. `robot` is what was found of the
    recordings of robots, with `warnings`, or None where there are none.
    """

    digest: str
    videos: int
    images: int
    frames: int
    seconds: float
    robots: list[str]
    labels: dict[str, int]
    splits: dict[str, int]
    accepted: list[dict[str, Any]]
    notes: list[dict[str, str]]
    findings: list[dict[str, str]]
    refused: list[dict[str, str]]
    images_passed_over: int
    robot: dict[str, Any] | None


def ingest(
    sources: Sequence[Path],
    out: Path,
    *,
    config: IngestConfig,
    labels: Path | None = None,
    workers: int = 1,
    patience: float = 120.0,
    progress: Progress = SILENT,
) -> IngestSummary:
    """Bring videos, images, folders and patterns of them, recordings of robots and tables into the store at `out`.

    `labels` is a table whose windows are kept with the videos that it names among the sources. A source that is in already with
    the same content is passed over; one that cannot be used is listed with its reason. Worker processes are spawned, so a script
    that calls this needs the `__main__` guard; a worker that makes no progress for `patience` seconds is killed and its source
    refused. With `workers` 0 all is done in this process, and nobody looks after it. Raises InputError where nothing can be
    used, StaleArtifactError where `out` was begun under another config or holds a source that is gone, OSError for a full disk.
    """
    out = Path(out)
    writer, found = _begin(sources, out, config=config, labels=labels)
    pending, lost = found.sources, dict[str, str]()
    progress.start("ingest", total=len(pending))
    while pending:
        lost |= _take(pending, out, config, workers=workers, patience=patience, progress=progress)
        entries = writer.recorded()
        decisions = decide(entries, config)
        pending = _revived(writer, entries, decisions, found.sources)
    progress.finish()
    writer.remove_unrecorded()
    kept = _kept(writer, lost, found.sources)
    refused = _refused(writer, {name: reason for name, reason in lost.items() if name not in kept})
    if not entries:
        if not writer.is_being_written():
            shutil.rmtree(out)
        all_of_them = f"none of the {len(refused)} sources can be used; the first, " if len(refused) > 1 else ""
        raise InputError(f"{all_of_them}{refused[0]['source']}: {refused[0]['reason']}")
    store = _finalise(writer, entries, decisions, refused, config)
    if any(entry.has_states for entry in store.entries):
        _check_robot(store, writer, config)
    remarks = [*found.remarks, *kept.values(), *decisions.remarks]
    return _summary(store, remarks=remarks, images_passed_over=sum(found.images_passed_over.values()))


def ingest_part(
    sources: Sequence[Path],
    out: Path,
    *,
    part: int,
    parts: int,
    config: IngestConfig,
    labels: Path | None = None,
    workers: int = 1,
    patience: float = 120.0,
    progress: Progress = SILENT,
) -> int:
    """Bring every `parts`-th source, from number `part` on, into the store at `out`, as one of several jobs; returns how many.

    `ingest` with the same sources then finds them there and completes the store: what it holds does not depend on the parts.
    """
    _, found = _begin(sources, out, config=config, labels=labels)
    mine = found.sources[part::parts]
    progress.start("ingest", total=len(mine))
    _take(mine, out, config, workers=workers, patience=patience, progress=progress)
    progress.finish()
    return len(mine)


def begin(sources: Sequence[Path], out: Path, *, config: IngestConfig, labels: Path | None = None) -> None:
    """Create the store at `out` or see that it may be gone on with; raises StaleArtifactError as `ingest` does."""
    _begin(sources, out, config=config, labels=labels)


def _begin(sources: Sequence[Path], out: Path, *, config: IngestConfig, labels: Path | None) -> tuple[VideoStoreWriter, Found]:
    wanted = Wanted(VIDEO_SUFFIXES, IMAGE_SUFFIXES, config.cameras, config.robot)
    found = find_sources([Path(source) for source in sources], wanted, labels=labels)
    _refuse_other_config(out, config)
    writer = VideoStoreWriter.open(out, configs.to_tree(config))
    writer.remove_unfinished()
    _refuse_vanished(writer, found.sources)
    return writer, found


def _refuse_other_config(out: Path, config: IngestConfig) -> None:
    before = VideoStoreWriter.read_config(out)
    if before is None:
        return
    begun = configs.validate(before, where=str(out))
    assert isinstance(begun, IngestConfig)
    # What is decided when all entries are there may change without decoding anything again.
    decided = {"drop": config.drop, "val_fraction": config.val_fraction, "split_seed": config.split_seed}
    difference = configs.first_difference(begun.model_copy(update=decided), config)
    if difference is not None:
        raise StaleArtifactError(
            f"{out}: was begun under another config: {difference}; give another --out, or start over with --replace"
        )


def _refuse_vanished(writer: VideoStoreWriter, found: Sequence[Source]) -> None:
    """A store must not keep what a searched folder no longer holds: its digest would depend on its history."""
    roots, names = {source.root for source in found}, {source.name for source in found}
    for key, record in writer.records().items():
        if record["root"] in roots and record["source"] not in names:
            if not record["entries"]:
                writer.remove_record(key)
                continue
            raise StaleArtifactError(
                f"{writer.path}: holds {record['source']}, which is gone from {record['root']}; "
                "give another --out, or start over with --replace"
            )


def _take(
    sources: Sequence[Source], out: Path, config: IngestConfig, *, workers: int, patience: float, progress: Progress
) -> dict[str, str]:
    """Take the sources in; returns those that a worker was lost over, by name, with what happened."""
    task, lost = Task(out, config), dict[str, str]()
    done = run_here(task, sources) if workers == 0 else run_in_processes(task, sources, workers=workers, patience=patience)
    peak = 0
    try:
        for item in done:
            if item.lost is not None:
                lost[item.item.name] = item.lost
            peak = max(peak, item.peak_bytes)
            progress.advance(fields={"MiB a worker": peak / 2**20})
    except OSError as error:
        # The name of a file is left out by the Zarr library where a disk is full.
        raise OSError(error.errno, error.strerror, error.filename or str(out)) from None
    return lost


def _revived(writer: VideoStoreWriter, entries: Entries, decisions: Decisions, sources: Sequence[Source]) -> list[Source]:
    """Sources of entries that were left out and are not any more, since the settings or what they were a copy of changed.

    Their frames are gone, so they are forgotten, to be taken in again.
    """
    back = {key for key in decisions.listed if entries[key].get("discarded")}
    records = writer.records()
    found = [source for source in sources if back & set(records.get(source.key, {"entries": {}})["entries"])]
    for source in found:
        for key in back & set(records[source.key]["entries"]):
            writer.remove(key)
    return found


def _kept(writer: VideoStoreWriter, lost: dict[str, str], sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Remarks on sources that a worker was lost over and that are in the store, by an earlier run or another process."""
    suspects = [source for source in sources if source.name in lost]
    known = [source.name for source in suspects if (writer.find_record(source.key) or {"entries": {}})["entries"]]
    return {name: {"source": name, "note": f"what was taken in before is kept: {lost[name]}"} for name in known}


def _refused(writer: VideoStoreWriter, lost: dict[str, str]) -> list[dict[str, str]]:
    records = [record for record in writer.records().values() if record["source"] not in lost]
    by_record = [item for record in records for item in [*record["refused"], *record["unplaced"]]]
    by_worker = [{"source": name, "reason": reason} for name, reason in lost.items()]
    return sorted([*by_record, *by_worker], key=lambda item: item["source"])


def _finalise(
    writer: VideoStoreWriter, entries: Entries, decisions: Decisions, refused: list[dict[str, str]], config: IngestConfig
) -> VideoStore:
    if unweighted := unweighted_beside_weighted({key: entries[key] for key in decisions.listed}):
        raise InputError(f"{unweighted[0]}: has no weight, and other sources of this store have one; list it in a table with one")
    listed = {}
    for key, item in entries.items():
        if key in decisions.listed and not item.get("discarded"):
            listed[key] = decisions.listed[key]
            continue
        writer.discard_frames(key)
        gone = "dropped by an earlier run, when the store held what it is a copy of; ingest its folder again"
        refused = [*refused, {"source": item["source"], "reason": decisions.dropped.get(key, gone)}]
    inputs = {"sources": digest_json({entries[key]["source"]: entries[key]["source_digest"] for key in listed})}
    described = provenance("ingest", config, inputs=inputs, seed=config.split_seed)
    return writer.finalise(listed, refused=refused, provenance=described, state_space=_state_space(config))


def _state_space(config: IngestConfig) -> dict[str, Any] | None:
    if config.robot is None:
        return None
    # With torch, which nobody waits for who ingests videos alone.
    from vjepa2cli.data.robot_numbers import state_space

    return state_space(config.robot).to_tree()


def _check_robot(store: VideoStore, writer: VideoStoreWriter, config: IngestConfig) -> None:
    from vjepa2cli.ingestion.robot_checks import VERSION, check_robot

    known = (store.robot_checks or {}).get("version") == VERSION
    if not known and (checks := check_robot(store, config.robot)) is not None:
        writer.keep_checks(checks, of=store.digest)


def _summary(store: VideoStore, *, remarks: list[dict[str, str]], images_passed_over: int) -> IngestSummary:
    entries = store.entries
    labels = [window.label for entry in entries for window in entry.windows]
    splits = [entry.split for entry in entries]
    accepted = [
        {
            "source": entry.source,
            "frames": entry.num_frames,
            "seconds": entry.seconds,
            "size": f"{entry.width}x{entry.height}",
            "split": entry.split,
        }
        for entry in entries
    ]
    return {
        "digest": store.digest,
        "videos": sum(not entry.still for entry in entries),
        "images": sum(entry.still for entry in entries),
        "frames": sum(entry.num_frames for entry in entries),
        "seconds": round(sum(entry.seconds for entry in entries if not entry.still), 3),
        "robots": sorted({entry.robot for entry in entries if entry.robot}),
        "labels": {label: labels.count(label) for label in store.labels},
        "splits": {split: splits.count(split) for split in ("train", "val")},
        "accepted": accepted,
        "notes": remarks + [{"source": entry.source, "note": note} for entry in entries for note in entry.notes],
        "findings": [{"source": entry.source, "finding": text} for entry in entries for text in entry.findings],
        "refused": store.refused,
        "images_passed_over": images_passed_over,
        "robot": store.robot_checks,
    }
