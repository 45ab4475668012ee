"""Ingest: videos and robot recordings of any origin into one video store, decoded once, by several processes, resumable.

What the store holds depends on the sources and the config alone, not on the number of workers or on interruptions.
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from vjepa2cli import config as configs
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.video_store import Description, EntryWriter, VideoStore, VideoStoreWriter, Window, plain
from vjepa2cli.data.file_faults import VIDEO_SUFFIXES
from vjepa2cli.data.video import DAMAGED, iterate_frames, probe_video, use_one_thread
from vjepa2cli.errors import ArtifactError, InputError, RecordingError, StaleArtifactError, VideoError
from vjepa2cli.files import digest_bytes, digest_file, digest_json
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.recordings.droid import read_episode
from vjepa2cli.recordings.episode import Episode
from vjepa2cli.recordings.labels import LabelledWindow
from vjepa2cli.recordings.sources import Source, find_sources
from vjepa2cli.settings import IngestConfig

# The raw DROID release holds no rate; its rows run at this one, while the headers of its videos claim another.
_DROID_RATE = 15.0


class IngestSummary(TypedDict):
    """What the finished store holds; equal stores give equal summaries."""

    digest: str
    videos: int
    frames: int
    robots: list[str]
    labels: dict[str, int]
    splits: dict[str, int]
    notes: list[dict[str, str]]
    refused: list[dict[str, str]]


def ingest(
    sources: Sequence[Path],
    out: Path,
    *,
    config: IngestConfig,
    labels: Path | None = None,
    workers: int = 2,
    progress: Progress = SILENT,
) -> IngestSummary:
    """Bring video files, folders, episodes in the raw DROID layout and .csv tables of labelled videos into the store at `out`.

    `labels` is a table whose windows are kept with the videos that it names among the sources. A source that is in already with
    the same content is passed over; one that cannot be used is listed with its reason, as of the last run. Worker processes are
    spawned, so a script that calls this with `workers` > 1 needs the `__main__` guard. Raises InputError where nothing can be
    used, StaleArtifactError where `out` was begun under another config or holds a source that is gone, OSError for a full disk.
    """
    found = find_sources([Path(source) for source in sources], cameras=config.cameras, suffixes=VIDEO_SUFFIXES, labels=labels)
    out = Path(out)
    _refuse_other_config(out, config)
    writer = VideoStoreWriter.open(out, configs.to_tree(config))
    writer.remove_unfinished()
    _refuse_vanished(writer, found)
    refused = []
    progress.start("ingest", total=len(found))
    try:
        for source, reason in _run(found, out, config, workers):
            if reason is not None:
                refused.append({"source": source.name, "reason": reason})
            progress.advance()
    except OSError as error:
        raise _named(error, out) from None
    progress.finish()
    if len(refused) == len(found):
        if not writer.finished():
            shutil.rmtree(out)
        first = min(refused, key=lambda item: item["source"])
        all_of_them = f"none of the {len(found)} sources can be used; the first, " if len(found) > 1 else ""
        raise InputError(f"{all_of_them}{first['source']}: {first['reason']}")
    entries = writer.finished()
    inputs = {"sources": digest_json({item["source"]: item["source_digest"] for item in entries.values()})}
    described = provenance("ingest", config, inputs=inputs, seed=config.split_seed)
    listed = {key: {"split": split, "weight": None} for key, split in _splits(entries, config).items()}
    return _summary(writer.finalise(listed, refused=refused, provenance=described))


def _refuse_other_config(out: Path, config: IngestConfig) -> None:
    before = VideoStoreWriter.read_config(out)
    if before is None:
        return
    difference = configs.first_difference(configs.validate(before, where=str(out)), config)
    if difference is not None:
        raise StaleArtifactError(
            f"{out}: was begun under another config: {difference}; give another --out, or start over with --replace"
        )


def _refuse_vanished(writer: VideoStoreWriter, found: Sequence[Source]) -> None:
    """A store must not keep what a searched folder no longer holds: its digest would depend on its history."""
    roots, names = {source.root for source in found}, {source.name for source in found}
    for record in writer.records().values():
        if record["root"] in roots and record["source"] not in names:
            raise StaleArtifactError(
                f"{writer.path}: holds {record['source']}, which is gone from {record['root']}; "
                "give another --out, or start over with --replace"
            )


def _run(found: Sequence[Source], out: Path, config: IngestConfig, workers: int) -> Iterator[tuple[Source, str | None]]:
    """Yield (source, reason for its refusal or None) as they are done."""
    if workers <= 1 or len(found) == 1:
        yield from ((source, _ingest_source(source, out, config)) for source in found)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(found)), mp_context=context, initializer=_start_worker)
    try:
        running = {pool.submit(_ingest_source, source, out, config): source for source in found}
        for done in as_completed(running):
            yield running[done], done.result()
    except BrokenProcessPool:
        raise ArtifactError(
            f"{out}: a worker process died, perhaps for want of memory; run the same command again with fewer --workers, "
            "it goes on where it stopped"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # An interruption ends a worker without a traceback of its own; the parent tells the user.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()


def _end_with_parent() -> None:
    # A worker that outlives a killed parent would go on writing beside the next run.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _named(error: OSError, out: Path) -> OSError:
    """The same error with a file name, which the Zarr library leaves out when a disk is full."""
    return OSError(error.errno, error.strerror, error.filename or str(out))


def _ingest_source(source: Source, out: Path, config: IngestConfig) -> str | None:
    """Bring one source into the store unless it is there; returns the reason where it is refused."""
    writer = VideoStoreWriter.open(out, configs.to_tree(config))
    try:
        episode = None if source.camera is None else read_episode(source.path)
        video = source.path if episode is None else _movie(episode, source)
        digest = _source_digest(source, video)
        present = writer.find(source.key)
        if present is None or present["source_digest"] != digest:
            with writer.entry(source.key) as entry:
                if episode is None:
                    _write_video(entry, source, video, digest, config)
                else:
                    _write_episode(entry, source, episode, video, digest, config)
        _label(writer, source, video)
        writer.record(source.key, {"root": source.root, "source": source.name})
    except (VideoError, RecordingError) as error:
        writer.remove(source.key)
        writer.remove_record(source.key)
        return _without_path(str(error), source)
    return None


def _movie(episode: Episode, source: Source) -> Path:
    assert source.camera is not None
    if source.camera not in episode.videos:
        known = ", ".join(episode.videos) or "none"
        raise RecordingError(f"{source.path}: no video of camera {source.camera} (there: {known}); set cameras to one of these")
    return episode.videos[source.camera]


def _source_digest(source: Source, video: Path) -> str:
    """Content of the files that an entry is made of."""
    files = [video]
    if source.camera is not None:
        files += sorted([source.path / "trajectory.h5", *source.path.glob("metadata*.json")])
    if not video.exists():
        raise VideoError(f"{video}: no such file; check the path")
    try:
        return digest_file(video) if len(files) == 1 else digest_bytes(*(digest_file(file).encode() for file in files))
    except PermissionError:
        raise VideoError(f"{video}: no permission to read it; change its mode or owner") from None


def _write_video(entry: EntryWriter, source: Source, video: Path, digest: str, config: IngestConfig) -> None:
    notes: list[str] = []
    times: list[float] = []
    with closing(iterate_frames(video, fps=config.fps, short_side=config.short_side, notes=notes)) as frames:
        for time, index, pixels in frames:
            entry.append(time, index, pixels)
            times.append(time)
            if entry.num_frames == config.max_frames:
                break
    _refuse_short(entry, video, config)
    rate = config.fps or _measured_rate(times, probe_video(video).fps)
    entry.finish(Description(source.name, digest, source.episode, rate, notes=tuple(notes)))


def _write_episode(entry: EntryWriter, source: Source, episode: Episode, video: Path, digest: str, config: IngestConfig) -> None:
    """Frames and rows are matched by number: the header's rate and timestamps are not trusted for robots."""
    notes: list[str] = []
    rate = episode.rate
    if rate is None:
        rate = _DROID_RATE
        notes.append(f"the recording names no rate; DROID's {rate:g} Hz is assumed")
    wanted = _wanted_rows(len(episode.states), rate, config, source)
    frames_seen = 0
    with closing(iterate_frames(video, short_side=config.short_side, notes=notes)) as frames:
        for _, index, pixels in frames:
            frames_seen = index + 1
            if index in wanted:
                entry.append(index / rate, index, pixels)
            if entry.num_frames == config.max_frames:
                break
    if any(note.startswith(DAMAGED) for note in notes):
        raise RecordingError(f"{video}: frames are lost in its middle, so frames and states cannot be matched; copy it again")
    if entry.num_frames != config.max_frames and frames_seen != len(episode.states):
        difference = f"{frames_seen} frames for {len(episode.states)} states"
        if abs(frames_seen - len(episode.states)) > 1:
            raise RecordingError(f"{video}: {difference}; frames and states must be of one recording, one frame a row")
        notes.append(f"{difference}; the one too many at the end is left out")
    _refuse_short(entry, video, config)
    rows: dict[str, NDArray[Any]] = {"states": episode.states[entry.indices]}
    if episode.actions is not None:
        rows["actions"] = episode.actions[entry.indices]
    description = Description(
        source.name,
        digest,
        source.episode,
        config.fps or rate,
        robot=episode.robot,
        camera=source.camera,
        instruction=episode.instruction,
        notes=tuple(notes),
    )
    entry.finish(description, rows=rows)


def _wanted_rows(num_rows: int, rate: float, config: IngestConfig, source: Source) -> frozenset[int]:
    """Rows that are kept, at the config's rate."""
    if config.fps is None:
        return frozenset(range(num_rows))
    if config.fps > rate * 1.001:
        raise RecordingError(f"{source.path}: runs at {rate:g} Hz, below fps {config.fps:g}; states do not repeat, lower fps")
    # A thousandth of a row of slack, so that rates which divide are not thrown off by rounding.
    rows = np.floor(np.arange(num_rows) * (rate / config.fps) + 1e-3).astype(int)
    return frozenset(int(row) for row in rows if row < num_rows)


def _refuse_short(entry: EntryWriter, video: Path, config: IngestConfig) -> None:
    if entry.num_frames < config.min_frames:
        at = "" if config.fps is None else f" at {config.fps:g} fps"
        raise VideoError(f"{video}: holds {entry.num_frames} frames{at}, fewer than min_frames {config.min_frames}; lower that")


def _measured_rate(times: Sequence[float], declared: float) -> float:
    """Frames a second: the header's word where the timestamps bear it out to a hundredth, else their mean."""
    span = times[-1] - times[0]
    if span <= 0:
        return declared
    measured = (len(times) - 1) / span
    return declared if abs(measured / declared - 1) < 0.01 else measured


def _label(writer: VideoStoreWriter, source: Source, video: Path) -> None:
    """Bring the labelled windows of a finished entry up to date, from frame numbers of the file to those that are stored."""
    if source.windows is None:
        return
    windows = _stored_windows(source.windows.get(video.name, ()), writer.indices(source.key))
    writer.update(source.key, {"windows": [plain(window) for window in windows], "episode": source.episode})


def _stored_windows(labelled: Sequence[LabelledWindow], indices: NDArray[np.int64]) -> list[Window]:
    """Windows in stored frames; those that reach beyond the last one are left out, for their motion is not all there."""
    beyond = int(indices[-1]) + max(1, int(indices[-1] - indices[-2]) if len(indices) > 1 else 1)
    windows = []
    for item in labelled:
        end = beyond if item.num_frames is None else item.start + item.num_frames
        first, stop = np.searchsorted(indices, [item.start, end])
        if end <= beyond and stop > first:
            windows.append(Window(int(first), int(stop - first), item.label))
    return windows


def _without_path(message: str, source: Source) -> str:
    """The reason alone: where the file lies differs from machine to machine."""
    for place in (f"{source.path}: ", f"{source.path}/"):
        message = message.removeprefix(place)
    return message


def _splits(entries: Mapping[str, Mapping[str, Any]], config: IngestConfig) -> dict[str, str]:
    """train or val by key: whole episodes, ranked by a hash, separately for robots and labelled videos so that each has both."""
    kinds: dict[tuple[str, bool], set[str]] = {}
    for item in entries.values():
        kinds.setdefault((item["robot"] or "", bool(item["windows"])), set()).add(item["episode"])
    held_out = set()
    for kind, episodes in kinds.items():
        ranked = sorted(episodes, key=lambda episode: digest_json([config.split_seed, episode]))
        count = round(config.val_fraction * len(ranked))
        if 0 < config.val_fraction < 1:
            count = min(max(count, 1), len(ranked) - 1)
        held_out |= {(kind, episode) for episode in ranked[:count]}
    return {
        key: "val" if ((item["robot"] or "", bool(item["windows"])), item["episode"]) in held_out else "train"
        for key, item in entries.items()
    }


def _summary(store: VideoStore) -> IngestSummary:
    labels = [window.label for entry in store.entries for window in entry.windows]
    splits = [entry.split for entry in store.entries]
    return {
        "digest": store.digest,
        "videos": len(store.entries),
        "frames": sum(entry.num_frames for entry in store.entries),
        "robots": sorted({entry.robot for entry in store.entries if entry.robot}),
        "labels": {label: labels.count(label) for label in store.labels},
        "splits": {split: splits.count(split) for split in ("train", "val")},
        "notes": [{"source": entry.source, "note": note} for entry in store.entries for note in entry.notes],
        "refused": store.refused,
    }
