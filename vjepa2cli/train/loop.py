"""The one training loop: batch, loss, update, and what a resumed run needs to equal one that was never killed."""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vjepa2cli.errors import StoppedError, TrainingError, Vjepa2Error
from vjepa2cli.progress import Progress
from vjepa2cli.settings import TrainingConfig
from vjepa2cli.train.engine import Engine
from vjepa2cli.train.health import Watch, not_finite
from vjepa2cli.train.losses import Batch, LossModule, level, named_means, weighted_loss
from vjepa2cli.train.run_directory import RunDirectory
from vjepa2cli.train.schedules import learning_rate
from vjepa2cli.train.signals import StopRequest

_LOG = logging.getLogger(__name__)


class Task(Protocol):
    """What differs between trainings. All randomness is a function of (seed, step), so one integer resumes a run."""

    @property
    def module(self) -> LossModule:
        """Everything to save; calling it on inputs returns the sums of its loss's terms."""

    def param_groups(self) -> Iterable[dict[str, Any]]:
        """Groups with `name`, `params`, `peak_lr` and `weight_decay`."""

    def batch(self, step: int, *, rows: range) -> Batch:
        """These rows of the global batch of a step (1-based), whichever process asks for them."""

    def after_step(self, step: int) -> None:
        """What follows the update, such as the EMA of the target encoder."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Figures on held-out data, which the leader alone is asked for."""


def decay_groups(module: nn.Module, *, name: str, peak_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices decay, biases and other one-dimensional parameters do not."""
    trained = [(key, parameter) for key, parameter in module.named_parameters() if parameter.requires_grad]
    spared = [parameter for key, parameter in trained if parameter.ndim == 1 or key.endswith("bias")]
    decayed = [parameter for key, parameter in trained if not (parameter.ndim == 1 or key.endswith("bias"))]
    groups = [
        {"name": name, "params": decayed, "peak_lr": peak_lr, "weight_decay": weight_decay},
        {"name": name, "params": spared, "peak_lr": peak_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def fit(task: Task, run: RunDirectory, *, engine: Engine, config: TrainingConfig, progress: Progress, description: str) -> float:
    """Train to the last step, from the newest checkpoint where there is one; returns the seconds this call trained.

    Raises TrainingError where training cannot go on (a loss or gradient that is not finite, a spike, a collapse), before an
    update would spoil the parameters, and StoppedError where a signal asked for the end and the state is saved.
    """
    began = time.monotonic()
    with StopRequest() as request:
        _Training(task, run, engine=engine, config=config, progress=progress, request=request).run(description)
    progress.finish()
    return time.monotonic() - began


@dataclass(frozen=True)
class _Fault:
    """Why a step was not taken, or what was found after it: `batch` names the rows to blame, `figures` are an evaluation's."""

    step: int
    reason: str
    batch: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def remedy(self) -> str:
        """What to change so that it does not come again."""
        if self.step == 0:
            return "begin with other weights"
        if self.figures and not not_finite(self.figures):
            return "raise ema.start"
        return "lower optimizer.lr, lengthen schedule.warmup_steps or set precision: fp32"


class _Training:
    """One run from where it stands to its last step."""

    def __init__(
        self, task: Task, run: RunDirectory, *, engine: Engine, config: TrainingConfig, progress: Progress, request: StopRequest
    ) -> None:
        self._task, self._run, self._engine, self._config = task, run, engine, config
        self._progress, self._request, self._group = progress, request, engine.group
        self._watch = Watch(config.health)
        self._rollbacks: list[dict[str, Any]] = []
        self._asked_to_stop = False

    def run(self, description: str) -> None:
        """Take every step that is left, going back where a fault asks for it."""
        step = self._resume()
        self._progress.start(description, total=self._config.steps, done=step)
        while step < self._config.steps:
            step += 1
            fault = self._train(step) or self._look(step)
            if fault is not None:
                step = self._react(fault)
                self._progress.start(description, total=self._config.steps, done=step)
                continue
            saved = self._is_due(step, self._config.checkpoint_every)
            if saved or self._asked_to_stop:
                self._save(step)
            if self._asked_to_stop and step < self._config.steps:
                name = self._request.name or "a signal to another process"
                raise self._group.agreed(
                    StoppedError(
                        f"{self._run.path}: stopped by {name} at step {step}, which is saved; run the same command again"
                    )
                )

    def _resume(self) -> int:
        done, rollbacks = self._group.on_leader(lambda: (self._run.latest_step(), self._run.rollbacks()))
        fault = None
        while done is not None and (found := self._fault_of_checkpoint(done)) is not None:
            fault, done = found, self._group.on_leader(partial(self._run.set_aside, done))
        self._rollbacks = [rollback for rollback in rollbacks if rollback["to"] <= (done or 0)]
        self._run.rewind_metrics(-1 if done is None else done)  # without a checkpoint, step 0 is evaluated again
        if done is None:
            fault = fault or self._look(0)
        if fault is not None:
            return self._react(fault)
        if done is None and self._config.health.on_fault == "roll_back":
            self._save(0)
        return done or 0

    def _fault_of_checkpoint(self, step: int) -> _Fault | None:
        """Take up a checkpoint, and look at it where a signal left no time to do so before it was saved."""
        looked_at = self._load(step)
        return None if looked_at else self._evaluate(step)[1]

    def _is_due(self, step: int, every: int) -> bool:
        return step == self._config.steps or step % every == 0

    def _train(self, step: int) -> _Fault | None:
        began, task, engine = time.monotonic(), self._task, self._engine
        if any(rollback["left_out"] == step for rollback in self._rollbacks):
            self._run.log({"step": step, "left_out": True})
            return None
        rate = self._learning_rate(step)
        engine.set_learning_rate(rate / self._config.optimizer.lr)
        parts, counts = self._next_batch(step)
        waited, terms = time.monotonic() - began, parts[0].terms or task.module.terms
        sums, reason = torch.zeros_like(counts), None
        for part in parts:
            part_sums = engine.sums(part.inputs)
            sums += part_sums.detach()
            last = part is parts[-1]
            if last:
                sums = self._group.total(sums)
                reason = self._watch.fault_of_loss(level(sums, counts, terms))
            # A loss of NaN gives a gradient that is not finite, which changes nothing.
            engine.backward(weighted_loss(part_sums, counts, terms) * (math.nan if reason else 1.0), last=last)
        logged = self._is_due(step, self._config.log_every)
        norms = engine.step(by_group=logged)
        reason = reason or self._watch.fault_of_gradient(norms["total"])
        if reason:
            return _Fault(step, reason, tuple(row for part in parts for row in part.ids))
        with torch.no_grad():
            task.after_step(step)
        if self._asked_to_stop or self._is_due(step, self._config.checkpoint_every):
            sums_now = torch.stack([engine.sums_alone(part.inputs) for part in parts]).sum(dim=0)
            reason = self._watch.fault_of_update(level(self._group.total(sums_now), counts, terms))
            if reason:
                return _Fault(step, reason, tuple(row for part in parts for row in part.ids))
        if logged:
            seconds = {"seconds": round(time.monotonic() - began, 4), "waited": round(waited, 4)}
            self._log(step, named_means(sums, counts, terms), rate=rate, norms=norms, seconds=seconds)
        return None

    def _learning_rate(self, step: int) -> float:
        """The schedule's rate, lowered by every rollback to before this step."""
        config = self._config
        rate = learning_rate(step, total=config.steps, peak=config.optimizer.lr, schedule=config.schedule)
        return rate * math.prod(float(rollback["rate_factor"]) for rollback in self._rollbacks if rollback["to"] < step)

    def _next_batch(self, step: int) -> tuple[list[Batch], Tensor]:
        """The parts of a step's batch, and the terms' counts over all parts and processes.

        The same sum tells whether any process was asked to stop, could not read its part, or left something out of it.
        """
        module, failure = self._task.module, None
        parts: list[Batch] = []
        mine = torch.zeros(len(module.terms), dtype=torch.float64)
        try:
            parts = [self._task.batch(step, rows=rows) for rows in self._engine.parts]
            mine = torch.stack([module.counts(part.inputs).double() for part in parts]).sum(dim=0).cpu()
        except (Vjepa2Error, OSError) as error:
            failure = error
        skipped = [reason for part in parts for reason in part.skipped]
        flags = torch.tensor([self._request.name is not None, failure is not None, bool(skipped)], dtype=torch.float64)
        total = self._group.total(torch.cat([mine, flags]))
        asked, failed, left_out = (total[-3:] > 0).tolist()
        self._asked_to_stop = self._asked_to_stop or asked
        if failed:
            self._group.require_none(failure)
        if left_out:
            self._tell_skipped(step, skipped)
        return parts, total[:-3]

    def _tell_skipped(self, step: int, mine: list[str]) -> None:
        skipped = sorted(reason for reasons in self._group.gather(mine) for reason in reasons)
        self._run.log({"step": step, "skipped": skipped})
        if self._group.is_leader:
            for reason in skipped:
                _LOG.warning("step %d drew another clip: %s", step, reason)

    def _log(
        self, step: int, means: dict[str, float], *, rate: float, norms: dict[str, float], seconds: dict[str, float]
    ) -> None:
        shown = {"gradient_norm" if name == "total" else f"gradient_norm_{name}": norm for name, norm in norms.items()}
        self._run.log({"step": step, **means, "lr": rate, **shown, **seconds})
        self._progress.advance((step - 1) % self._config.log_every + 1, fields={"loss": means["loss"]})

    def _look(self, step: int) -> _Fault | None:
        """Evaluate where it is due; figures that JSON has no word for are told by the fault alone."""
        if not self._look_is_due(step):
            return None
        figures, fault = self._evaluate(step)
        if not not_finite(figures):
            self._run.log({"step": step, "eval": figures})
        return fault

    def _look_is_due(self, step: int) -> bool:
        """Every so many steps and, since only what was looked at counts as good, before each checkpoint."""
        before_checkpoint = self._config.WATCHED and self._is_due(step, self._config.checkpoint_every)
        return before_checkpoint or self._is_due(step, self._config.evaluate_every)

    def _evaluate(self, step: int) -> tuple[dict[str, float], _Fault | None]:
        figures = self._group.on_leader(lambda: self._task.evaluate(step))
        reason = self._watch.fault_of_figures(figures)
        return figures, _Fault(step, reason, figures=figures) if reason else None

    def _save(self, step: int) -> None:
        self._group.on_leader(self._run.require_unchanged)
        looked_at = not self._config.WATCHED or self._look_is_due(step)
        self._engine.save(self._run.checkpoint(step), {"step": step, "looked_at": looked_at} | self._watch.state())
        # One that was not looked at takes the place of none that was.
        self._run.drop_old_checkpoints(keep=self._config.keep_checkpoints + (not looked_at))

    def _load(self, step: int) -> bool:
        """Take up a checkpoint; returns whether it was looked at before it was saved."""
        state = self._engine.load(self._run.checkpoint(step))
        self._watch.restore(state["levels"], state["first"])
        return bool(state.get("looked_at", False))

    def _react(self, fault: _Fault) -> int:
        """Stop with the reason, or go back to the last checkpoint and return its step."""
        health, to = self._config.health, self._group.on_leader(self._run.latest_step)
        batch = [row for rows in self._group.gather(fault.batch) for row in rows]
        about = {"step": fault.step, "reason": fault.reason, "batch": batch, "checkpoint": to}
        path = self._run.record_fault(fault.step, about | ({"figures": fault.figures} if fault.figures else {}))
        what = f"step {fault.step}: {fault.reason}; {'its batch is listed in' if batch else 'see'} {path}"
        if to is None:
            raise self._group.agreed(TrainingError(f"{what}; there is no checkpoint to go back to; {fault.remedy}"))
        what += f"; the last good checkpoint is {self._run.checkpoint(to)}"
        if health.on_fault == "stop":
            remedy = f"With health.on_fault=roll_back it goes back to it and on by itself; or {fault.remedy}"
            raise self._group.agreed(TrainingError(f"{what}. {remedy}"))
        if len(self._rollbacks) >= health.max_rollbacks:
            tried = f"health.max_rollbacks: {health.max_rollbacks} of them did not help"
            raise self._group.agreed(TrainingError(f"{what}. {tried}; {fault.remedy}"))
        rollback = {
            "from": fault.step,
            "to": to,
            "reason": fault.reason,
            "rate_factor": health.rate_factor,
            "left_out": fault.step if batch else None,
        }
        self._rollbacks.append(rollback)
        self._load(to)
        self._run.rewind_metrics(to)
        self._run.log({"step": to, "rollback": rollback})
        return int(to)
