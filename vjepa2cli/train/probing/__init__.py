"""Frozen evaluation: heads on the tokens of an encoder that does not learn, beside the same heads on its baselines.

The head is chosen on clips set aside from training; the validation clips are looked at by all heads and choose nothing.
Source: evals/video_classification_frozen of facebookresearch/vjepa2, whose scores choose heads on the validation set.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vjepa2cli.artifacts.latent_store import Shard
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.errors import InputError, TrainingError
from vjepa2cli.files import digest_json, write_json
from vjepa2cli.models.weights import load_probe
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.recordings.labelled import read_labelled
from vjepa2cli.registry import published_scores
from vjepa2cli.settings import ProbeConfig, ScheduleConfig
from vjepa2cli.train.probing.anticipation import anticipation_contestant, read_action_data
from vjepa2cli.train.probing.contest import Contestant, Setting, contest, folder_of, judge_only, recognition_contestant
from vjepa2cli.train.probing.judging import lead
from vjepa2cli.train.probing.label_maps import require_same_labels, stated_questions
from vjepa2cli.train.probing.samples import ProbeData, from_labelled_set, from_store
from vjepa2cli.train.process_group import ProcessGroup, choose_device

__all__ = ["probe", "remove_part"]

_FEATURES = "features"


def probe(
    data: Path | Sequence[Path],
    run_dir: Path,
    *,
    model: str,
    config: ProbeConfig,
    weights: str | None = None,
    beside: Sequence[str] = (),
    root: Path | None = None,
    classes: Path | None = None,
    cache: Path | None = None,
    max_cache: int | None = None,
    shard: Shard | None = None,
    device: str = "auto",
    fetch: Callable[[str], str] = str,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = SILENT,
) -> Path:
    """Probe an encoder, its baselines and the encoders `beside` it on labelled clips; returns the report.

    `data` is a video store, or the tables of a labelled set, whose files lie in `root` and whose classes `classes` lists. With
    `weights` nothing is trained: that probe is judged on the validation clips. Tokens are kept in `cache`, at most `max_cache`
    bytes. `fetch` brings a source of weights here, once the data are known to be good.

    With a `shard` only that part of the encoders is probed, beside other jobs, and the path is that of a note of which; the run
    without one takes over what such jobs have done, and does what is left.

    Raises InputError for data that cannot be probed, before anything is encoded, and TrainingError on several processes.
    """
    group = ProcessGroup(choose_device(device))
    if group.world_size > 1:
        message = f"probe runs on one process, and {group.world_size} were launched; start it without a launcher"
        raise group.agreed(TrainingError(message))
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(path) for path in data]
    found = _read(paths, config, root=root, classes=classes, judged_only=weights is not None, weights=weights)
    for line in found.dropped:
        say(f"left out: {line}")
    model, beside = fetch(model), [fetch(source) for source in beside]
    weights = None if weights is None else fetch(weights)
    config = config if weights is not None else _with_steps(config, len(found.train) * config.augment.copies)
    setting = Setting(found, config, group, cache or run_dir / _FEATURES, max_cache, say, progress)
    if weights is not None:
        return _judge_weights(weights, model, run_dir, setting)
    results, timing, digests, right = [], {}, {}, []
    sources = {"trained": model} | {str(kind): model for kind in config.baselines} | {other: other for other in beside}
    for name in _part([*sources], shard):
        result, seconds = contest(_contestant(name, sources[name], setting), folder_of(run_dir, name), setting)
        right.append(result.pop("right", None))
        results.append({"encoder": name, **result})
        timing[name], digests[name] = round(seconds, 1), result["encoder_digest"]
    if shard is not None:
        note = run_dir / f"part-{shard.index:05d}-of-{shard.count:05d}.json"
        write_json(note, {"encoders": digests})
        return note
    if right[0] is not None:
        groups = [sample.group for sample in found.val]
        for result, answers in zip(results[1:], right[1:], strict=True):
            result["behind"] = lead(right[0], answers, groups, seed=config.seed)
    return _write(run_dir, results, setting, digests, timing)


def remove_part(run_dir: Path, config: ProbeConfig, beside: Sequence[str], shard: Shard) -> None:
    """Remove what a job has made for its part of the encoders, and leave that of the others alone."""
    for name in _part(["trained", *config.baselines, *beside], shard):
        for parent in (run_dir, run_dir / _FEATURES):
            shutil.rmtree(folder_of(parent, name), ignore_errors=True)


def _part(names: list[str], shard: Shard | None) -> list[str]:
    return names if shard is None else names[shard.index :: shard.count]


def _read(
    paths: Sequence[Path], config: ProbeConfig, *, root: Path | None, classes: Path | None, judged_only: bool, weights: str | None
) -> ProbeData:
    if any(path.suffix == ".zarr" for path in paths):
        if len(paths) > 1:
            raise InputError(f"{paths[1]}: a video store holds both splits; give it alone")
        return from_store(VideoStore.open(paths[0]), config)
    if config.anticipation is not None:
        return read_action_data(paths, config, root=root, judged_only=judged_only)
    labelled = read_labelled(paths, root=root, classes=classes, drop_missing=config.missing == "drop")
    stated = stated_questions(weights) if weights is not None else None
    return from_labelled_set(labelled, paths, config, judged_only=judged_only, stated=stated)


def _with_steps(config: ProbeConfig, rows: int) -> ProbeConfig:
    """Epochs as steps, and the released schedule: from the peak to zero along a cosine."""
    if config.epochs is None:
        return config
    steps = math.ceil(config.epochs * rows / config.augment.copies / config.batch_size)
    schedule = ScheduleConfig(warmup_steps=min(config.schedule.warmup_steps, steps), decay_steps=steps, decay="cosine")
    return config.model_copy(update={"steps": steps, "schedule": schedule})


def _contestant(name: str, source: str, setting: Setting) -> Contestant:
    make = recognition_contestant if setting.config.anticipation is None else anticipation_contestant
    return make(name, source, setting)


def _judge_weights(weights: str, model: str, run_dir: Path, setting: Setting) -> Path:
    head = load_probe(weights)
    require_same_labels(weights, head, setting.data)
    contestant = _contestant("trained", model, setting)
    result = judge_only(contestant, head, run_dir / "trained", setting)
    result.pop("right", None)
    body = {"encoder": "trained", "weights": weights, **result}
    return _write(run_dir, [body], setting, {"trained": result["encoder_digest"]}, {})


def _write(
    run_dir: Path, results: list[dict[str, Any]], setting: Setting, digests: dict[str, str], timing: dict[str, float]
) -> Path:
    data, config = setting.data, setting.config
    last = np.array([sample.targets[-1] for sample in data.val])
    body = {
        "classes": list(data.questions[-1].classes),
        "label_digest": data.label_digest,
        "chance": float(np.bincount(last).max() / len(last)),
        "chance_meaning": "always naming the most frequent class of the validation windows",
        "clips": {"train": len(data.train), "selection": len(data.selection), "val": len(data.val)},
        "dropped": list(data.dropped),
        "protocol": _protocol(config, data),
        "published": published_scores(config.dataset or ""),
        "results": results,
    }
    body["verdict"] = "\n".join(verdict_lines(body))
    origin = provenance("probe", config, inputs={"data": data.digest, **digests}, seed=config.seed)
    return write_report(run_dir / "report.json", "probe", body, provenance=origin, timing=timing)


def verdict_lines(body: Mapping[str, Any]) -> list[str]:
    """What a report says in a line a contestant, with intervals, and the published numbers beside it."""
    first = body["results"][0]["encoder"]
    lines = [_told(result, first) for result in body["results"]]
    lines.append(f"chance {body['chance'] * 100:.1f} %, {body['chance_meaning']}")
    if body["published"]:
        told = (
            f"{name} {score if isinstance(score, float) else ' / '.join(map(str, score))}"
            for name, score in body["published"].items()
        )
        lines.append(f"published, each by the best head on the validation set: {', '.join(told)}")
    return lines


def _told(result: Mapping[str, Any], first: str) -> str:
    if "questions" in result:
        told = (f"{name} {(one['recall_at_5'] or 0) * 100:.1f}" for name, one in result["questions"].items())
        return f"{result['encoder']}: class-mean recall at 5: {', '.join(told)}"
    low, high = (f"{end * 100:.1f}" for end in result["interval"])
    line = f"{result['encoder']}: {result['correct']} of {result['total']}, {result['accuracy'] * 100:.1f} % ({low}-{high})"
    for name in ("linear", "neighbours"):
        if name in result:
            line += f"; {name} {result[name]['accuracy'] * 100:.1f}"
    if "behind" in result:
        low, high = (f"{end * 100:.1f}" for end in result["behind"]["interval"])
        line += f"; {first} is ahead by {result['behind']['mean'] * 100:.1f} points ({low} to {high})"
    return line


def _protocol(config: ProbeConfig, data: ProbeData) -> dict[str, Any]:
    """All that a score depends on besides the encoder; equal fingerprints compare."""
    said: dict[str, Any] = {
        "clips": f"{config.num_frames} frames, {'spread' if config.frame_step is None else f'{config.frame_step} apart'}, "
        f"{config.segments} segments x {config.views} views, crop {config.crop}",
        "head": f"depth {config.depth}, {len(config.head_settings)} heads",
        "chosen_on": "the validation clips, as released"
        if config.released_protocol.best_head_on_val
        else "clips set aside from training",
        "released_protocol": config.released_protocol.model_dump(),
    }
    if config.anticipation is not None:
        ahead = config.anticipation
        where = "start, as the benchmark has it" if ahead.anchor == "start" else "stop, as in the released code"
        said["anchor"] = f"{ahead.seconds:g} s before the action's {where}"
    names = [[sample.name, list(sample.targets)] for sample in data.val]
    return said | {"fingerprint": digest_json([said, names, data.label_digest])}
