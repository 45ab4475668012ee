"""The one training loop: batch, loss, update, and what a resumed run needs to equal one that was never killed."""

import time
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from vjepa2cli.progress import Progress
from vjepa2cli.settings import TrainingConfig
from vjepa2cli.train.engine import Engine
from vjepa2cli.train.health import require_finite
from vjepa2cli.train.losses import Batch, LossModule, named_means, weighted_loss
from vjepa2cli.train.run_directory import RunDirectory
from vjepa2cli.train.schedules import learning_rate


class Task(Protocol):
    """What differs between trainings. All randomness is a function of (seed, step), so one integer resumes a run."""

    @property
    def module(self) -> LossModule:
        """Everything to save; calling it on inputs returns the sums of its loss's terms."""

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups with `params`, `peak_lr` and `weight_decay`."""

    def batch(self, step: int, *, rows: range) -> Batch:
        """These rows of the global batch of a step (1-based), whichever process asks for them."""

    def after_step(self, step: int) -> None:
        """What follows the update, such as the EMA of the target encoder."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Figures on held-out data; the same on every process."""


def decay_groups(module: nn.Module, *, peak_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices decay, biases and other one-dimensional parameters do not."""
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    spared = [parameter for name, parameter in trained if parameter.ndim == 1 or name.endswith("bias")]
    decayed = [parameter for name, parameter in trained if not (parameter.ndim == 1 or name.endswith("bias"))]
    groups = [
        {"params": decayed, "peak_lr": peak_lr, "weight_decay": weight_decay},
        {"params": spared, "peak_lr": peak_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def fit(task: Task, run: RunDirectory, *, engine: Engine, config: TrainingConfig, progress: Progress, description: str) -> float:
    """Train to the last step, from the newest checkpoint where there is one; returns the seconds this call trained.

    Raises TrainingError on a loss that is not finite, before the update that it would spoil.
    """
    done = run.latest_step()
    if done:
        engine.load(run.checkpoint(done))
    run.rewind_metrics(done or -1)  # without a checkpoint, step 0 is evaluated again
    progress.start(description, total=config.steps, done=done)
    began = time.monotonic()
    if not done:
        run.log({"step": 0, "eval": task.evaluate(0)})
    for step in range(done + 1, config.steps + 1):
        _train_step(task, run, engine=engine, config=config, step=step, progress=progress)
        last = step == config.steps
        if last or step % config.evaluate_every == 0:
            run.log({"step": step, "eval": task.evaluate(step)})
        if last or step % config.checkpoint_every == 0:
            engine.save(run.checkpoint(step))
            run.drop_old_checkpoints(keep=config.keep_checkpoints)
    progress.finish()
    return time.monotonic() - began


def _train_step(task: Task, run: RunDirectory, *, engine: Engine, config: TrainingConfig, step: int, progress: Progress) -> None:
    began = time.monotonic()
    rate = learning_rate(step, total=config.steps, peak=config.optimizer.lr, schedule=config.schedule)
    engine.set_learning_rate(rate / config.optimizer.lr)
    batch = task.batch(step, rows=engine.rows)
    inputs, terms = batch.inputs, batch.terms or task.module.terms
    counts = engine.total(task.module.counts(inputs).to(engine.device))
    sums = engine.sums(inputs)
    values = named_means(engine.total(sums), counts, terms)
    require_finite(values["loss"], step=step)
    engine.update(weighted_loss(sums, counts, terms))
    with torch.no_grad():
        task.after_step(step)
    if step % config.log_every == 0:
        run.log({"step": step, **values, "lr": rate, "seconds": round(time.monotonic() - began, 4)})
        progress.advance(config.log_every, fields={"loss": values["loss"]})
