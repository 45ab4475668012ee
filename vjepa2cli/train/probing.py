"""An attentive probe on frozen features, beside the same probe on an untrained encoder and on raw pixels.

The head is chosen on episodes held out of training; the validation episodes are looked at once, by the chosen head.
Source: evals/video_classification_frozen of facebookresearch/vjepa2, whose scores choose heads on the validation set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.statistics import wilson_interval
from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore, Window
from vjepa2cli.data.batches import mix_seed
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.errors import InputError, TrainingError
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.engine import Engine, autocast
from vjepa2cli.train.loop import fit
from vjepa2cli.train.losses import Batch, LossModule, Term
from vjepa2cli.train.process_group import ProcessGroup, choose_device
from vjepa2cli.train.run_directory import RunDirectory

_PART = 64


@dataclass(frozen=True)
class LabelledFeatures:
    """Frozen features [M, N, D] and labels [M] of windows."""

    tokens: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class ProbeModule(LossModule):
    """Probes that share features and differ in their learning rate; each head is a term."""

    def __init__(self, heads: Sequence[AttentiveProbe], *, precision: str) -> None:
        """One head a learning rate."""
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self._precision = precision
        self.terms = tuple(Term(f"head_{index}", 1.0) for index in range(len(heads)))

    def counts(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Windows, once a head."""
        return torch.full((len(self.heads),), float(len(inputs[1])), dtype=torch.float64)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy of features [B, N, D] and labels [B] under each head, summed over windows."""
        tokens, labels = inputs
        with autocast(self._precision, tokens.device):
            return torch.stack([F.cross_entropy(head(tokens).float(), labels, reduction="sum") for head in self.heads])

    @torch.no_grad()
    def correct(self, features: LabelledFeatures, *, device: torch.device) -> Tensor:
        """Whether each head is right on each window: [heads, M] bool."""
        right = []
        for start in range(0, len(features), _PART):
            tokens, labels = features.tokens[start : start + _PART], features.labels[start : start + _PART]
            with autocast(self._precision, device):
                chosen = [head(tokens.to(device, torch.float32)).argmax(dim=-1).cpu() for head in self.heads]
            right.append(torch.stack(chosen) == labels)
        return torch.cat(right, dim=1)


class ProbeTask:
    """The probing Task of the one training loop, for one encoder."""

    def __init__(
        self, train: LabelledFeatures, selection: LabelledFeatures, config: ProbeConfig, *, num_classes: int, device: torch.device
    ) -> None:
        """`selection` chooses the head; it is no part of what is reported."""
        self._train, self._selection, self._config, self._device = train, selection, config, device
        labels = train.labels.numpy()
        self._rows_of = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}
        spec = ProbeSpec(
            embed_dim=train.tokens.shape[-1],
            num_classes=num_classes,
            depth=config.depth,
            num_heads=_heads_that_divide(train.tokens.shape[-1], config.num_heads),
        )
        heads = [AttentiveProbe(spec, generator=torch.Generator().manual_seed(config.seed)) for _ in config.learning_rates]
        self.module = ProbeModule(heads, precision=config.precision).to(device)

    def param_groups(self) -> list[dict[str, Any]]:
        """One group a head; the released probes decay every parameter."""
        decay = self._config.optimizer.weight_decay
        pairs = zip(self.module.heads, self._config.learning_rates, strict=True)
        return [
            {"name": f"head_{index}", "params": list(head.parameters()), "peak_lr": rate, "weight_decay": decay}
            for index, (head, rate) in enumerate(pairs)
        ]

    def batch(self, step: int, *, rows: range) -> Batch:
        """Windows drawn evenly over the classes, so that a rare motion is not ignored."""
        rng = np.random.default_rng([self._config.seed, step])
        wanted = rng.choice(list(self._rows_of), size=self._config.batch_size)
        drawn = [int(rng.choice(self._rows_of[label])) for label in wanted.tolist()][rows.start : rows.stop]
        inputs = self._train.tokens[drawn].to(self._device, torch.float32), self._train.labels[drawn].to(self._device)
        return Batch(inputs, tuple(f"window {number}" for number in drawn))

    def after_step(self, step: int) -> None:
        """Nothing follows the update."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Accuracy of each head on the selection episodes; `step` plays no part."""
        accuracies = self.module.correct(self._selection, device=self._device).float().mean(dim=1)
        return {f"accuracy_{index}": float(value) for index, value in enumerate(accuracies)}


def _heads_that_divide(width: int, wanted: int) -> int:
    """The largest number of heads up to `wanted` that divides the width, for feature widths that are not the encoder's."""
    return next(heads for heads in range(wanted, 0, -1) if width % heads == 0)


def probe(
    store: Path, run_dir: Path, *, model: str, config: ProbeConfig, device: str = "auto", progress: Progress = SILENT
) -> Path:
    """Probe an encoder and its baselines on the labelled windows of a video store; returns the report.

    Raises InputError where windows are unlabelled, of one class, or not in both splits, TrainingError on more than one process.
    """
    group = ProcessGroup(choose_device(device))
    if group.world_size > 1:
        message = f"probe runs on one process, and {group.world_size} were launched; start it without a launcher"
        raise group.agreed(TrainingError(message))
    videos = VideoStore.open(store)
    results, timing, digests = [], {}, {}
    for kind in ("trained", *config.baselines):
        encoder_source = model if kind == "trained" else f"{kind}:{model}"
        result, seconds = _probe_encoder(
            videos, run_dir / kind, source=encoder_source, config=config, group=group, progress=progress
        )
        results.append({"encoder": kind, **result})
        timing[kind], digests[kind] = round(seconds, 1), result["encoder_digest"]
    total = results[0]["total"]
    counts = np.bincount(_labels(videos, "val", videos.labels), minlength=len(videos.labels))
    body = {
        "classes": list(videos.labels),
        "chance": float(counts.max() / total),
        "chance_meaning": "always naming the most frequent class of the validation windows",
        "results": results,
    }
    origin = provenance("probe", config, inputs={"videos": videos.digest, **digests}, seed=config.seed)
    return write_report(run_dir / "report.json", "probe", body, provenance=origin, timing=timing)


def _probe_encoder(
    videos: VideoStore, run_dir: Path, *, source: str, config: ProbeConfig, group: ProcessGroup, progress: Progress
) -> tuple[dict[str, Any], float]:
    """Train the heads on one encoder's features and test the chosen one."""
    device = group.device
    encoder = load_encoder(source, device=device)
    digest = encoder_digest(encoder)
    prepare_for_inference(encoder, device=device, precision=config.precision)
    train_entries, selection_entries = _split_for_selection(videos, config)
    features = [
        _features(encoder, videos, entries, config=config, device=device, progress=progress)
        for entries in (train_entries, selection_entries, [entry for entry in videos.entries if entry.split == "val"])
    ]
    train, selection, held_out = features
    origin = provenance("probe", config, inputs={"videos": videos.digest, "encoder": digest}, seed=config.seed)
    with RunDirectory(run_dir, config=config, provenance=origin, leader=True) as run:
        task = ProbeTask(train, selection, config, num_classes=len(videos.labels), device=device)
        engine = Engine(task.module, task.param_groups(), config=config, group=group)
        seconds = fit(task, run, engine=engine, config=config, progress=progress, description=f"probe {run_dir.name}")
        result = _judge(
            task.module, run, selection=selection, held_out=held_out, classes=videos.labels, config=config, device=device
        )
        head = task.module.heads[result["head"]]
        about = {
            "kind": "probe",
            "encoder": {"source": source, "digest": digest},
            "classes": list(videos.labels),
            "num_heads": head.spec.num_heads,
            "trained_steps": config.steps,
            "provenance": origin,
        }
        save_model(run_dir / "model", {"vjepa2cli": about}, head.state_dict())
    return result | {"encoder_digest": digest}, seconds


def _judge(
    module: ProbeModule,
    run: RunDirectory,
    *,
    selection: LabelledFeatures,
    held_out: LabelledFeatures,
    classes: Sequence[str],
    config: ProbeConfig,
    device: torch.device,
) -> dict[str, Any]:
    """Choose the head on the selection episodes and count on the validation ones."""
    on_selection = module.correct(selection, device=device).float().mean(dim=1)
    best = int(on_selection.argmax())
    right = module.correct(held_out, device=device)[best]
    per_class = {
        name: {"correct": int(right[held_out.labels == index].sum()), "total": int((held_out.labels == index).sum())}
        for index, name in enumerate(classes)
    }
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        "correct": int(right.sum()),
        "total": len(right),
        "accuracy": float(right.float().mean()),
        "interval": [low, high],
        "per_class": per_class,
        "head": best,
        "learning_rate": config.learning_rates[best],
        "selection_accuracy": float(on_selection[best]),
        "evaluations": run.evaluations(),
    }


def _split_for_selection(videos: VideoStore, config: ProbeConfig) -> tuple[list[VideoEntry], list[VideoEntry]]:
    """Training entries without, and with only, the share that chooses the head."""
    labelled = [entry for entry in videos.entries if entry.split == "train" and entry.windows]
    if len(labelled) < 2 or not any(entry.windows for entry in videos.entries if entry.split == "val"):
        raise InputError(
            "probing needs labelled windows in at least two training videos and one validation video; "
            "ingest with --labels CSV and a val_fraction above 0"
        )
    if len(videos.labels) < 2:
        raise InputError(f"every window has the label {videos.labels[0]!r}; probing needs at least two classes")
    order = np.random.default_rng([config.seed, mix_seed(len(labelled))]).permutation(len(labelled))
    held = set(order[: max(1, round(config.selection_fraction * len(labelled)))].tolist())
    return [entry for i, entry in enumerate(labelled) if i not in held], [entry for i, entry in enumerate(labelled) if i in held]


def _windows(entries: Sequence[VideoEntry]) -> Iterator[tuple[VideoEntry, Window]]:
    return ((entry, window) for entry in entries for window in entry.windows)


def _labels(videos: VideoStore, split: str, classes: Sequence[str]) -> list[int]:
    return [classes.index(window.label) for _, window in _windows([entry for entry in videos.entries if entry.split == split])]


@torch.inference_mode()
def _features(
    encoder: nn.Module,
    videos: VideoStore,
    entries: Sequence[VideoEntry],
    *,
    config: ProbeConfig,
    device: torch.device,
    progress: Progress,
) -> LabelledFeatures:
    """Encode every labelled window of the entries as one clip, without augmentation."""
    pairs = list(_windows(entries))
    progress.start("features", total=len(pairs))
    parts = []
    for start in range(0, len(pairs), config.feature_batch):
        batch = pairs[start : start + config.feature_batch]
        clips = torch.stack([_clip(videos, entry, window, config) for entry, window in batch]).to(device)
        parts.append(encoder(clips).half().cpu())
        progress.advance(len(batch))
    progress.finish()
    labels = torch.tensor([videos.labels.index(window.label) for _, window in pairs])
    return LabelledFeatures(torch.cat(parts).clone(), labels)


def _clip(videos: VideoStore, entry: VideoEntry, window: Window, config: ProbeConfig) -> Tensor:
    """One window as a clip [3, F, crop, crop] of `num_frames` frames spread over it."""
    frames = videos.frames(entry.key, window.start, min(window.start + window.num_frames, entry.num_frames))
    picked = np.linspace(0, len(frames) - 1, config.num_frames).round().astype(int)
    return torch.as_tensor(frame_transform(frames[picked], crop=config.crop)).transpose(0, 1)
