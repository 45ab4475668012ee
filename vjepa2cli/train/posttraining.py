"""V-JEPA 2-AC post-training: an action-conditioned predictor on cached latents, with no encoder in the process.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3; app/vjepa_droid/train.py of facebookresearch/vjepa2.
"""

from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.batches import mix_seed
from vjepa2cli.data.windows import WindowBatches, Windows
from vjepa2cli.errors import ConfigError
from vjepa2cli.models.weights import state_digest
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.ac_initial import begin
from vjepa2cli.train.ac_objective import PosttrainModule
from vjepa2cli.train.engine import Engine, autocast, check_processes
from vjepa2cli.train.loop import decay_groups, fit
from vjepa2cli.train.losses import Batch
from vjepa2cli.train.process_group import ProcessGroup, choose_device
from vjepa2cli.train.run_directory import RunDirectory

_EVALUATION_WINDOWS, _EVALUATION_ROWS = 96, 8


class PosttrainTask:
    """The post-training Task of the one training loop."""

    def __init__(
        self,
        store: LatentStore,
        config: PosttrainConfig,
        *,
        device: torch.device,
        init_from: str | None = None,
        threads: int = 0,
    ) -> None:
        """`threads` read batches ahead. Raises ConfigError where the rollout is longer than a window; see also `begin`."""
        if config.rollout_steps >= config.num_frames:
            raise ConfigError(f"rollout_steps: {config.rollout_steps} must be below num_frames ({config.num_frames})")
        self._config, self._device = config, device
        train = store.of_split("train")
        held_out = [index for index in store.of_split("val") if store.lengths[index] >= config.num_frames]
        self.evaluated_split = "val" if held_out else "train"
        windows = partial(
            WindowBatches, store, num_frames=config.num_frames, seed=config.seed, with_extrinsics=config.predictor.extrinsics
        )
        self._batches = windows(train, threads=threads, pinned=device.type == "cuda")
        self._evaluation = windows(held_out or train)
        self.initial = begin(store, train, config, init_from=init_from)
        self.module = PosttrainModule(self.initial.predictor, config).to(device)

    def param_groups(self) -> list[dict[str, Any]]:
        """Matrices with weight decay and the rest without."""
        optimizer = self._config.optimizer
        return decay_groups(self.module, name="predictor", peak_lr=optimizer.lr, weight_decay=optimizer.weight_decay)

    def batch(self, step: int, *, rows: range) -> Batch:
        """Windows, which the module takes to its device when their turn comes, and whether this step takes the rollout loss."""
        with_rollout = bool(np.random.default_rng([self._config.seed, step]).random() < self._config.rollout_fraction)
        return Batch((self._batches.batch(step, rows=rows), with_rollout), self._batches.ids(step, rows=rows))

    def after_step(self, step: int) -> None:
        """Nothing follows the update."""

    def close(self) -> None:
        """End the threads that read batches."""
        self._batches.close()

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Plain L1 on held-out windows beside copying the last step and beside shuffled actions; `step` plays no part."""
        numbers = self._evaluation.spread(_EVALUATION_WINDOWS)
        shuffled = _derangement(len(numbers)).tolist()
        rows = min(self._config.micro_batch_size or _EVALUATION_ROWS, _EVALUATION_ROWS)
        sums: dict[str, float] = {}
        for start in range(0, len(numbers), rows):
            windows = self._evaluation.windows(numbers[start : start + rows])
            others = self._evaluation.windows([numbers[index] for index in shuffled[start : start + rows]])
            for name, error in self._errors(windows, others.actions).items():
                sums[name] = sums.get(name, 0.0) + error * len(windows.actions)
        return {name: total / len(numbers) for name, total in sums.items()}

    def _errors(self, windows: Windows, other_actions: Tensor) -> dict[str, float]:
        module, windows = self.module, windows.to(self._device)
        wrong = Windows(windows.latents, windows.states, other_actions.to(self._device), windows.extrinsics)
        target = windows.latents[:, 1:]
        with autocast(self._config.precision, self._device):
            forced, deceived = module.teacher_forced(windows), module.teacher_forced(wrong)
            rolled = module.rolled_out(windows, forced)
        return {
            "teacher_forced": float((forced - target).abs().mean()),
            "rollout": float((rolled - target[:, : rolled.shape[1]]).abs().mean()),
            "copy": float((windows.latents[:, :-1] - target).abs().mean()),
            "shuffled_actions": float((deceived - target).abs().mean()),
        }


def _derangement(count: int) -> Tensor:
    """A fixed permutation that leaves no window its own actions (where there is more than one)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(mix_seed(count)))
    shuffled = torch.empty_like(order)
    shuffled[order] = order.roll(1)
    return shuffled


def posttrain(
    latents: Path,
    run_dir: Path,
    *,
    config: PosttrainConfig,
    init_from: str | None = None,
    threads: int = 1,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Path:
    """Train an AC predictor on a latent store and return the run's report; a killed run goes on where its last checkpoint is.

    A new run begins with fresh weights, or with those of the AC predictor `init_from` (see `models.weights`). `threads` read the
    next batch meanwhile; they change nothing in it. Raises ArtifactError for a missing store and for latents of another encoder
    than the source's, ConfigError for a run directory of another config and for a source that does not fit, TrainingError where
    training cannot go on, StoppedError where a signal asked for the end and the state is saved.
    """
    group = ProcessGroup(choose_device(device))
    check_processes(config, group=group)
    store = group.together(lambda: LatentStore.open(latents))

    def inputs_now() -> dict[str, str]:
        with closing(LatentStore.open(latents)) as now:
            return {"latents": now.digest}

    with closing(store):
        task = group.together(lambda: PosttrainTask(store, config, device=group.device, init_from=init_from, threads=threads))
        initial = task.initial
        inputs = {"latents": store.digest, "encoder": store.encoder_digest}
        inputs |= {} if initial.digest is None else {"initial": initial.digest}
        origin = provenance("posttrain", config, inputs=inputs, seed=config.seed)
        if initial.digest is not None:
            origin["initial"] = {"trained_steps": initial.trained_steps, "fresh": list(initial.fresh)}
        with (
            closing(task),
            group.together(
                lambda: RunDirectory(run_dir, config=config, provenance=origin, leader=group.is_leader, inputs_now=inputs_now)
            ) as run,
        ):
            engine = Engine(task.module, task.param_groups(), config=config, group=group)
            seconds = fit(task, run, engine=engine, config=config, progress=progress, description="posttrain")
            group.on_leader(lambda: _publish(task, run, store=store, config=config, origin=origin, seconds=seconds))
    return run_dir / "report.json"


def _publish(
    task: PosttrainTask,
    run: RunDirectory,
    *,
    store: LatentStore,
    config: PosttrainConfig,
    origin: dict[str, Any],
    seconds: float,
) -> None:
    """Write the shareable model, which names its encoder, then the report, last."""
    predictor, steps_before = task.module.predictor, task.initial.trained_steps
    about = {
        "kind": "ac_predictor",
        "spec": asdict(predictor.spec),
        "encoder": {"source": store.encoder_source, "digest": store.encoder_digest},
        "preprocessing": store.preprocessing,
        "rate": store.rate,
        "robot": store.robot,
        "state_space": store.state_space,
        "trained_steps": steps_before + config.steps,
        "seed": config.seed,
        "provenance": origin,
        "digest": state_digest(predictor),
    }
    save_model(run.path / "model", {"vjepa2cli": about}, predictor.state_dict())
    evaluations = run.evaluations()
    kind = store.encoder_source.partition(":")[0]
    encoder = {
        "kind": kind if kind in ("untrained", "pixels") else "trained",
        "source": store.encoder_source,
        "digest": store.encoder_digest,
    }
    body = {
        "steps": config.steps,
        "encoder": encoder,
        "evaluations": evaluations,
        "evaluated_split": task.evaluated_split,
        "rollbacks": run.rollbacks(),
        "final": evaluations[-1],
        "digest_model": about["digest"],
    }
    write_report(run.path / "report.json", "posttrain", body, provenance=origin, timing={"seconds": round(seconds, 1)})
