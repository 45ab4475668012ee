"""One encoder in the contest: its features, its sweep of heads, and what the chosen one says of the validation clips."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_json
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.probe_sweep import Probe, ProbeSweep
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.engine import Engine
from vjepa2cli.train.loop import fit
from vjepa2cli.train.probing.examples import draw_examples
from vjepa2cli.train.probing.features import (
    ClipReader,
    Embed,
    Features,
    Reader,
    compute,
    embedding,
    estimate,
    fill,
    token_shape,
)
from vjepa2cli.train.probing.heads import ProbeTask, new_heads, targets_of
from vjepa2cli.train.probing.judging import Scores, best, judge, tell
from vjepa2cli.train.probing.samples import ProbeData, Sample
from vjepa2cli.train.probing.simple import linear_probe, nearest_neighbours
from vjepa2cli.train.process_group import ProcessGroup
from vjepa2cli.train.run_directory import RunDirectory

_SINGLE_FRAME = "single-frame"
_GIB = 1 << 30


@dataclass(frozen=True)
class Setting:
    """What all contestants share: the data, the protocol, and where the work is done.

    `max_cache` bounds the bytes of all cached tokens, None by the free disk; `say` takes a line for people.
    """

    data: ProbeData
    config: ProbeConfig
    group: ProcessGroup
    cache: Path
    max_cache: int | None = None
    say: Callable[[str], None] = lambda _: None
    progress: Progress = SILENT

    @property
    def device(self) -> torch.device:
        """Where networks run."""
        return self.group.device

    @property
    def precision(self) -> str:
        """What evaluation computes in."""
        return "fp16" if self.config.released_protocol.half_precision else self.config.precision


@dataclass(frozen=True)
class Contestant:
    """A frozen encoder with its name, and how it makes tokens of the clips of samples."""

    name: str
    source: str
    encoder: FrameEncoder
    digest: str
    embed: Embed
    make_reader: Callable[[Sequence[Sample], int], Reader]

    @property
    def is_single_frame(self) -> bool:
        """Whether it sees one frame of a clip."""
        return self.name == _SINGLE_FRAME


def folder_of(parent: Path, name: str) -> Path:
    """Where what belongs to an encoder lies; the name of one that is put beside others may be a path."""
    return parent / name.replace("/", "-")


def recognition_contestant(name: str, model: str, setting: Setting) -> Contestant:
    """The encoder of `model`, or one of its baselines, for clips of recorded actions."""
    config = setting.config
    source = model if name not in ("untrained", "pixels") else f"{name}:{model}"
    encoder = load_encoder(source, device=setting.device)
    digest = encoder_digest(encoder)
    prepare_for_inference(encoder, device=setting.device, precision="fp32" if setting.precision == "fp16" else config.precision)
    embed = embedding(encoder, config)

    def reader(samples: Sequence[Sample], views: int) -> Reader:
        return ClipReader(samples, config, views=views, single_frame=name == _SINGLE_FRAME)

    return Contestant(name, source, encoder, digest, embed, reader)


@dataclass
class Splits:
    """The features of the three splits of one contestant."""

    train: Features
    selection: Features
    val: Features
    shape: tuple[int, int]


def make_features(
    contestant: Contestant, samples: Sequence[Sample], setting: Setting, *, copies: int | None, views: int
) -> Features:
    """Features of one split, none of which is made yet."""
    return Features(
        contestant.make_reader(samples, views),
        contestant.embed,
        count=len(samples),
        copies=copies,
        views=views,
        device=setting.device,
        batch=max(1, setting.config.feature_batch // (views * setting.config.segments)),
        threads=max(1, (os.cpu_count() or 2) - 1),
        autocast=partial(compute, setting.precision, setting.device),
    )


def prepare_features(contestant: Contestant, setting: Setting) -> Splits:
    """Say what the tokens take, and encode those of training and selection, and of validation as far as there is room."""
    data, config = setting.data, setting.config
    splits = [
        make_features(contestant, data.train, setting, copies=config.augment.copies, views=1),
        make_features(contestant, data.selection, setting, copies=None, views=1),
        make_features(contestant, data.val, setting, copies=None, views=config.views),
    ]
    shape = token_shape(splits[0])
    room, lines = setting.max_cache, []
    kept = []
    for features in splits:
        found = estimate(features, shape, folder=setting.cache, max_bytes=room)
        # Validation clips are looked at once, so their tokens are worth no more than what is left over.
        kept.append(found.kept)
        lines.append(found)
        room = None if room is None else room - found.kept * found.row_bytes
    wanted, cached = sum(one.num_bytes for one in lines), sum(one.kept * one.row_bytes for one in lines)
    part = "all of it" if cached == wanted else f"{cached / _GIB:.2f} GiB of it, the rest is encoded whenever it is asked for"
    setting.say(
        f"{contestant.name}: {sum(one.rows for one in lines)} clips to encode, {shape[0]} tokens of width {shape[1]} a view; "
        f"features take {wanted / _GIB:.2f} GiB; kept in {setting.cache}: {part}"
    )
    names = ("train", "selection", "val")
    sets = (data.train, data.selection, data.val)
    for name, features, samples, rows in zip(names, splits, sets, kept, strict=True):
        header = {"encoder": contestant.digest, "samples": digest_json([data.digest, [sample.name for sample in samples]])}
        folder = folder_of(setting.cache, contestant.name) / name
        fill(features, folder, header, shape=shape, kept=rows, progress=setting.progress, name=f"{name}, {contestant.name}")
    train, selection, val = splits
    return Splits(train, selection, val, shape)


def contest(contestant: Contestant, run_dir: Path, setting: Setting) -> tuple[dict[str, Any], float]:
    """Train the heads on one encoder's features, choose one, and judge it; returns its result and the seconds of training."""
    data, config, device = setting.data, setting.config, setting.device
    splits = prepare_features(contestant, setting)
    origin = provenance("probe", config, inputs={"data": data.digest, "encoder": contestant.digest}, seed=config.seed)
    with RunDirectory(run_dir, config=config, provenance=origin, leader=True) as run:
        heads = new_heads(data.questions, config, width=splits.shape[1])
        pairs = (data.train, data.selection)
        task = ProbeTask(splits.train, splits.selection, samples=pairs, heads=heads, config=config, device=device)
        engine = Engine(task.module, task.param_groups(), config=config, group=setting.group)
        seconds = fit(task, run, engine=engine, config=config, progress=setting.progress, description=f"probe {run_dir.name}")
        task.close()
        evaluations = run.evaluations()
        result = _choose_and_judge(task, splits, contestant, setting)
        result["evaluations"] = evaluations
        head = task.module.sweep.heads[result["head"]]
        _save(head, run_dir / "model", contestant, setting, origin)
        result |= _simple(splits, setting)
        result["examples"] = draw_examples(
            head, splits.val, result.pop("predictions"), contestant.encoder, data, config, folder=run_dir / "examples"
        )
    return result | {"encoder_digest": contestant.digest}, seconds


def _choose_and_judge(task: ProbeTask, splits: Splits, contestant: Contestant, setting: Setting) -> dict[str, Any]:
    """The head that is best on selection, what it says of validation, and all the others beside it."""
    data, config = setting.data, setting.config
    sweep, alive = task.module.sweep, [bool(value) for value in task.module.alive.tolist()]
    stopped = task.module.stopped_at.tolist()
    finished = [sound and not step for sound, step in zip(alive, stopped, strict=True)]
    on_selection = judge(sweep, splits.selection, targets_of(data.selection), precision=setting.precision).selection_scores()
    name = f"judging {contestant.name}"
    scores = judge(sweep, splits.val, targets_of(data.val), precision=setting.precision, progress=setting.progress, name=name)
    on_val = scores.selection_scores()
    chosen = best(on_val if config.released_protocol.best_head_on_val else on_selection, finished)
    rows = [
        {
            "learning_rate": rate,
            "weight_decay": decay,
            "selection": float(on_selection[index]),
            "validation": float(on_val[index]),
            "diverged": not alive[index],
            "stopped_at": int(stopped[index]),
        }
        for index, (rate, decay) in enumerate(config.head_settings)
    ]
    told = describe(scores, chosen, setting, alive=finished)
    return told | {
        "head": chosen,
        "learning_rate": config.head_settings[chosen][0],
        "weight_decay": config.head_settings[chosen][1],
        "selection_accuracy": float(on_selection[chosen]),
        "heads": rows,
    }


def describe(scores: Scores, head: int, setting: Setting, *, alive: Sequence[bool]) -> dict[str, Any]:
    """What the report holds of a head's answers, of one question or of each of several, and the answers themselves."""
    data = setting.data
    predictions = {"predictions": [(answers.named[head], answers.confidence[head]) for answers in scores.answers]}
    if len(data.questions) == 1:
        return tell(scores.answers[0], head, data.questions[0]) | predictions | {"right": scores.answers[0].right[head]}
    told: dict[str, Any] = {}
    for index, question in enumerate(data.questions):
        of = head
        if setting.config.released_protocol.best_head_on_val:  # as released, a head of its own for each
            of = best([scores.recalls(one)[index] or 0.0 for one in range(len(alive))], alive)
        recall = {"recall_at_5": scores.recalls(of)[index]}
        told[question.name] = tell(scores.answers[index], of, question) | recall | {"head": of}
    last = told[data.questions[-1].name]
    return {key: last[key] for key in ("correct", "total", "accuracy", "interval")} | {"questions": told} | predictions


def _save(head: Probe, folder: Path, contestant: Contestant, setting: Setting, origin: dict[str, Any]) -> None:
    data = setting.data
    about = {
        "kind": "probe",
        "encoder": {"source": contestant.source, "digest": contestant.digest},
        "classes": list(data.questions[-1].classes),
        "questions": [[question.name, list(question.classes)] for question in data.questions],
        "label_digest": data.label_digest,
        "num_heads": head.spec.num_heads,
        "trained_steps": setting.config.steps,
        "provenance": origin,
    }
    save_model(folder, {"vjepa2cli": about}, head.state_dict())


def _simple(splits: Splits, setting: Setting) -> dict[str, Any]:
    """The linear probe and the nearest neighbours, on mean tokens; of one question alone."""
    data, config = setting.data, setting.config
    if len(data.questions) > 1:
        return {}
    means: list[Tensor] = []
    for features in (splits.train, splits.selection, splits.val):
        assert features.cache is not None
        means.append(torch.from_numpy(features.cache.means()[: features.count].astype(np.float32)).to(setting.device))
    labels = [targets_of(samples)[:, 0].to(setting.device) for samples in (data.train, data.selection, data.val)]
    count = len(data.questions[0].classes)
    told: dict[str, Any] = {}
    if config.linear:
        told["linear"] = linear_probe(means, labels, num_classes=count)
    if config.neighbours:
        told["neighbours"] = nearest_neighbours(means, labels, num_classes=count, counts=config.neighbours)
    return told


def judge_only(contestant: Contestant, probe: Probe, run_dir: Path, setting: Setting) -> dict[str, Any]:
    """What a trained probe says of the validation clips."""
    data, config = setting.data, setting.config
    val = make_features(contestant, data.val, setting, copies=None, views=config.views)
    _, tokens = next(iter(val.encode([0])))
    if tokens.shape[-1] != probe.spec.embed_dim:
        raise WeightsError(
            f"the probe reads tokens of width {probe.spec.embed_dim}, and those of {contestant.source} have {tokens.shape[-1]}; "
            "give the encoder that it was trained on with --model"
        )
    probe = prepare_for_inference(probe, device=setting.device, precision="fp32")
    sweep = ProbeSweep([probe])
    name = f"judging {contestant.name}"
    scores = judge(sweep, val, targets_of(data.val), precision=setting.precision, progress=setting.progress, name=name)
    result = describe(scores, 0, setting, alive=[True])
    result["examples"] = draw_examples(
        probe, val, result.pop("predictions"), contestant.encoder, data, config, folder=run_dir / "examples"
    )
    return result | {"encoder_digest": contestant.digest, "head": 0}
