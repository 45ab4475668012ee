"""V-JEPA 2 pretraining: predict the features of masked tubelets against an EMA target encoder.

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; app/vjepa/train.py of facebookresearch/vjepa2.
"""

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa2cli import config as configs
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.batches import fixed_clips
from vjepa2cli.errors import ConfigError
from vjepa2cli.models.weights import state_digest, to_folder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.clip_groups import ClipGroups, find_sources, masks_on, reader
from vjepa2cli.train.engine import Engine, autocast, check_processes
from vjepa2cli.train.health import at_most, feature_figures
from vjepa2cli.train.initial import Initial, continue_run, give_weights
from vjepa2cli.train.loop import decay_groups, fit
from vjepa2cli.train.losses import Batch
from vjepa2cli.train.networks import build_encoder, build_predictor
from vjepa2cli.train.objective import MaskedClips, PretrainModule, family_losses, loss_terms
from vjepa2cli.train.online_probe import OnlineProbe
from vjepa2cli.train.process_group import ProcessGroup, choose_device
from vjepa2cli.train.run_directory import RunDirectory
from vjepa2cli.train.schedules import context_loss_share, ema_momentum

_LOG = logging.getLogger(__name__)

_EVALUATION_CLIPS, _EVALUATION_BYTES = 32, 1 << 30
"""How many clips tell how a run goes; of long and large ones as many as fit, but a batch of them."""
_EVALUATION_BATCH = 8
_EVALUATION_TOKENS = 512
"""How many positions of each tell of collapse; all of a long clip would make matrices of gigabytes."""
_EVALUATION_STEP = 2**40


class PretrainTask:
    """The pretraining Task of the one training loop."""

    def __init__(self, store: VideoStore, config: PretrainConfig, *, device: torch.device, threads: int = 0) -> None:
        """`threads` make batches ahead. Raises InputError where the store holds nothing of a kind that the config asks for."""
        self._config, self._device, self._steps_before = config, device, 0
        generator = torch.Generator().manual_seed(config.seed)
        encoder, predictor = build_encoder(config, generator=generator), build_predictor(config, generator=generator)
        self._losses = family_losses(config)
        self.module = PretrainModule(
            encoder, predictor, losses=self._losses, by_distance=config.context_loss.by_distance, precision=config.precision
        ).to(device)
        self._clips = ClipGroups(store, config, device=device, threads=threads)
        held_out = find_sources(store, "val", config.clip.media) or find_sources(store, "train", config.clip.media)
        self._probe = OnlineProbe.of(store, windows=config.probe_windows, shape=config.clip)
        size = 4 * 3 * config.clip.num_frames * config.clip.crop**2
        count = max(_EVALUATION_BATCH, min(_EVALUATION_CLIPS, _EVALUATION_BYTES // size))
        self._unreadable: list[str] = []
        self._told: set[str] = set()
        skipped = self._unreadable if config.unreadable == "skip" else None
        self._evaluation = fixed_clips(held_out, reader(store), shape=config.clip, count=count, skipped=skipped)

    def say_what_differs(self) -> None:
        """Warn of what the store gives otherwise than the config asks."""
        if not self._config.released_quirks.stretched_clips:
            for remark in self._clips.remarks:
                _LOG.warning(remark)

    def begin_from(self, source: str) -> Initial:
        """Begin with the weights of a model, or with what went into the newest checkpoint of a run, which is still to be loaded.

        Clips, masks and the context loss go on where the source ended, unless a quirk begins them again.
        """
        initial = continue_run(Path(source), self._config) or give_weights(source, self.module, config=self._config)
        if not self._config.released_quirks.replayed_draws:
            self._steps_before = initial.trained_steps
        return initial

    def param_groups(self) -> list[dict[str, Any]]:
        """Encoder and predictor, matrices with weight decay and the rest without."""
        optimizer = self._config.optimizer
        parts = {"encoder": self.module.encoder, "predictor": self.module.predictor}
        return [
            group
            for name, part in parts.items()
            for group in decay_groups(part, name=name, peak_lr=optimizer.lr, weight_decay=optimizer.weight_decay)
        ]

    def batch(self, step: int, *, rows: range) -> Batch:
        """Clips of every kind and their masks; drawn for the whole batch, so the number of processes changes nothing."""
        step += self._steps_before
        share = context_loss_share(step, self._config.context_loss)
        terms = loss_terms(family_losses(self._config, context_share=share))
        return self._clips.batch(step, rows, terms=terms)

    def close(self) -> None:
        """End the threads that make batches."""
        self._clips.close()

    def after_step(self, step: int) -> None:
        """Update the target encoder."""
        self.module.update_target(ema_momentum(step, total=self._config.steps, ema=self._config.ema))

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Loss under fixed masks, and what tells of collapse, on fixed held-out clips; `step` plays no part.

        `unreadable` counts those that could not be read and were replaced, and the probe's, which were left out.
        """
        losses: list[float] = []
        teacher: list[Tensor] = []
        student: list[Tensor] = []
        masks = replace(self._clips.first_masks, batch_size=_EVALUATION_BATCH, rows_per_draw=None)
        for start in range(0, len(self._evaluation), _EVALUATION_BATCH):
            part = self._evaluation[start : start + _EVALUATION_BATCH]
            clips = part.to(self._device)
            ((_, families),) = masks.draws(_EVALUATION_STEP, rows=range(len(part)))
            losses.append(self.module.mean_loss([MaskedClips(clips, masks_on(families, self._device))]) * len(part))
            with autocast(self._config.precision, self._device):
                found = self.module.target_features(clips), self.module.student_features(clips)
            for kept, features in zip((teacher, student), found, strict=True):
                # The last level alone: its width is that of one level.
                kept.append(at_most(_EVALUATION_TOKENS, features[..., -self.module.encoder.spec.embed_dim :]))
        share = sum(family.weight for family in self._losses[0])  # of the loss that clips of the first kind make up
        figures = feature_figures(torch.cat(teacher), torch.cat(student))
        return {"loss": sum(losses) / len(self._evaluation) / share} | figures | self._look_at_classes()

    def _look_at_classes(self) -> dict[str, float]:
        """The online probe's figure, where there is one, and how many clips of the evaluation could not be read, where any."""
        unreadable, figures = list(self._unreadable), dict[str, float]()
        if self._probe is not None:
            skipped = unreadable if self._config.unreadable == "skip" else None
            accuracy = self._probe.accuracy(self._teacher_features, device=self._device, skipped=skipped)
            if accuracy is not None:
                figures["probe_accuracy"] = accuracy
        for reason in sorted(set(unreadable) - self._told):
            _LOG.warning("the evaluation goes without a clip: %s", reason)
        self._told |= set(unreadable)
        return figures | ({"unreadable": float(len(unreadable))} if unreadable else {})

    def _teacher_features(self, clips: Tensor) -> Tensor:
        with autocast(self._config.precision, self._device):
            return self.module.target_features(clips)


def pretrain(
    store: Path,
    run_dir: Path,
    *,
    config: PretrainConfig,
    init_from: str | None = None,
    threads: int = 1,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Path:
    """Pretrain an encoder on a video store and return the run's report; a killed run goes on where its last checkpoint is.

    A new run begins with fresh weights, or from `init_from`: a run directory, with its optimizer's state, or a model (see
    `models.weights`). `threads` read and augment the next batch meanwhile; they change nothing in it. Raises ArtifactError for an
    incomplete store, ConfigError for a run directory of another config and for a source that does not fit, TrainingError where
    training cannot go on, StoppedError where a signal asked for the end and the state is saved.
    """
    if config.continues and init_from is None:
        raise ConfigError("continues: true: this config goes on with a trained model; name it by --init-from")
    group = ProcessGroup(choose_device(device))
    check_processes(config, group=group)
    videos = group.together(lambda: VideoStore.open(store))
    task = group.together(lambda: PretrainTask(videos, config, device=group.device, threads=threads))
    if group.is_leader:
        task.say_what_differs()
    initial = None if init_from is None else group.together(lambda: task.begin_from(init_from))
    inputs = {"videos": videos.digest} | ({} if initial is None else {"initial": initial.digest})
    origin = provenance("pretrain", config, inputs=inputs, seed=config.seed)
    if initial is not None:
        origin["initial"] = {"trained_steps": initial.trained_steps}

    def inputs_now() -> dict[str, str]:
        return {"videos": VideoStore.open(store).digest}

    with group.together(
        lambda: RunDirectory(run_dir, config=config, provenance=origin, leader=group.is_leader, inputs_now=inputs_now)
    ) as run:
        engine = Engine(task.module, task.param_groups(), config=config, group=group)
        if initial is not None and initial.checkpoint is not None and group.on_leader(run.latest_step) is None:
            engine.load(initial.checkpoint)
        with closing(task):
            seconds = fit(task, run, engine=engine, config=config, progress=progress, description="pretrain")
        group.on_leader(lambda: _publish(task.module, run, config=config, origin=origin, seconds=seconds))
    return run_dir / "report.json"


def _publish(
    module: PretrainModule, run: RunDirectory, *, config: PretrainConfig, origin: dict[str, Any], seconds: float
) -> None:
    """Write the shareable model (the EMA encoder and the predictor), then the report, last."""
    tree, tensors = to_folder(module.target_encoder, module.predictor)
    about = tree["vjepa2cli"] | {
        "trained_steps": origin.get("initial", {}).get("trained_steps", 0) + config.steps,
        "provenance": origin,
        "digest": state_digest(module.target_encoder),
    }
    save_model(run.path / "model", tree | {"vjepa2cli": about}, tensors)
    evaluations = run.evaluations()
    final = evaluations[-1]
    body = {
        "steps": config.steps,
        "encoder": about["spec"] | {"digest": about["digest"]},
        "final": {"loss": final["loss"], "rank": final["rank"], "rank_initial": evaluations[0]["rank"], "std": final["std"]},
        "evaluations": evaluations,
        "rollbacks": run.rollbacks(),
        "skipped_clips": run.num_skipped(),
        "config": configs.to_tree(config),
    }
    write_report(run.path / "report.json", "pretrain", body, provenance=origin, timing={"seconds": round(seconds, 1)})
