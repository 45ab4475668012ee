"""V-JEPA 2-AC post-training: an action-conditioned predictor on cached latents, with no encoder in the process.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3; app/vjepa_droid/train.py of facebookresearch/vjepa2.
"""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.batches import WindowBatches, Windows, mix_seed
from vjepa2cli.errors import ConfigError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.weights import state_digest
from vjepa2cli.models.world_model import rollout
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.engine import Engine, autocast, check_processes
from vjepa2cli.train.loop import decay_groups, fit
from vjepa2cli.train.losses import Batch, LossModule, Term
from vjepa2cli.train.process_group import ProcessGroup, choose_device
from vjepa2cli.train.run_directory import RunDirectory

_EVALUATION_WINDOWS = 96


class PosttrainModule(LossModule):
    """The AC predictor; its loss is that of teacher forcing plus that of the rollout."""

    def __init__(self, predictor: AcPredictor, *, rollout_steps: int, change_weight: float, precision: str) -> None:
        """`change_weight` adds to each token's weight its own change over the step, in units of the mean change.

        With weights w = 1 + c · change / mean(change) the weighted mean of the error is (its plain mean + c times its mean
        weighted by the change) / (1 + c): two terms, neither of which needs the mean change of other processes.
        """
        super().__init__()
        self.predictor = predictor
        self._rollout_steps, self._change_weight, self._precision = rollout_steps, change_weight, precision
        weights = [1.0, change_weight] if change_weight else [1.0]
        self.terms = tuple(Term(name, weight / sum(weights)) for name in ("teacher_forced", "rollout") for weight in weights)

    def counts(self, inputs: tuple[Windows, bool]) -> Tensor:
        """Of teacher forcing, then of the rollout: tokens, and where change counts the sum of their changes."""
        windows, with_rollout = inputs
        steps = (windows.latents.shape[1] - 1, self._rollout_steps)
        forced, rolled = (
            self._summed(torch.ones_like(change), change) for change in (_change(windows.latents, n) for n in steps)
        )
        return torch.cat([forced, rolled * with_rollout])

    def forward(self, inputs: tuple[Windows, bool]) -> Tensor:
        """Sums of the absolute error of windows; the flag says whether the rollout loss is taken as well."""
        windows, with_rollout = inputs
        with autocast(self._precision, windows.latents.device):
            forced = self._errors(self.teacher_forced(windows), windows.latents)
            rolled = self._errors(self.rolled_out(windows), windows.latents) if with_rollout else torch.zeros_like(forced)
        return torch.cat([forced, rolled])

    def teacher_forced(self, windows: Windows) -> Tensor:
        """Predictions of steps 1..T-1, each from the true steps before it: [B, T-1, H*W, D] float32."""
        predicted: Tensor = self.predictor(windows.latents[:, :-1], windows.actions, windows.states[:, :-1])
        return self._normed(predicted.float())

    def rolled_out(self, windows: Windows) -> Tensor:
        """Predictions of steps 1..R, each from step 0 and the predictions before it; gradients flow through the fed-back ones."""
        steps = self._rollout_steps
        return rollout(self.predictor, windows.latents[:, :1], windows.states[:, :steps], windows.actions[:, :steps]).float()

    def _normed(self, latents: Tensor) -> Tensor:
        return F.layer_norm(latents, latents.shape[-1:]) if self.predictor.spec.layer_norm else latents

    def _errors(self, predicted: Tensor, latents: Tensor) -> Tensor:
        """Sums of the absolute error of predictions of steps 1..n, [B, n, H*W, D]: plain, and weighted by the tokens' change."""
        steps = predicted.shape[1]
        return self._summed((predicted - latents[:, 1 : steps + 1]).abs().mean(dim=-1), _change(latents, steps))

    def _summed(self, values: Tensor, change: Tensor) -> Tensor:
        return torch.stack([values.sum(), (values * change).sum()] if self._change_weight else [values.sum()])


def _change(latents: Tensor, steps: int) -> Tensor:
    """How much each token changes over each of the first steps, [B, steps, H*W]."""
    return (latents[:, 1 : steps + 1] - latents[:, :steps]).abs().mean(dim=-1)


class PosttrainTask:
    """The post-training Task of the one training loop."""

    def __init__(self, store: LatentStore, config: PosttrainConfig, *, device: torch.device) -> None:
        """Raises ConfigError where the rollout is longer than a window."""
        if config.rollout_steps >= config.num_frames:
            raise ConfigError(f"rollout_steps: {config.rollout_steps} must be below num_frames ({config.num_frames})")
        self._config, self._device = config, device
        train, held_out = store.of_split("train"), store.of_split("val")
        self._batches = WindowBatches(store, train, num_frames=config.num_frames, seed=config.seed)
        evaluation = WindowBatches(store, held_out or train, num_frames=config.num_frames, seed=config.seed)
        self._evaluation = evaluation.spread(_EVALUATION_WINDOWS)
        spec = ac_predictor_spec(store, train, config)
        predictor = AcPredictor(spec, generator=torch.Generator().manual_seed(config.seed))
        self.module = PosttrainModule(
            predictor, rollout_steps=config.rollout_steps, change_weight=config.change_weight, precision=config.precision
        ).to(device)

    def param_groups(self) -> list[dict[str, Any]]:
        """Matrices with weight decay and the rest without."""
        optimizer = self._config.optimizer
        return decay_groups(self.module, name="predictor", peak_lr=optimizer.lr, weight_decay=optimizer.weight_decay)

    def batch(self, step: int, *, rows: range) -> Batch:
        """Windows, and whether this step takes the rollout loss."""
        with_rollout = bool(np.random.default_rng([self._config.seed, step]).random() < self._config.rollout_fraction)
        windows = self._batches.batch(step, rows=rows).to(self._device)
        return Batch((windows, with_rollout), self._batches.ids(step, rows=rows))

    def after_step(self, step: int) -> None:
        """Nothing follows the update."""

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Plain L1 on held-out windows beside copying the last step and beside shuffled actions; `step` plays no part."""
        windows, module = self._evaluation.to(self._device), self.module
        shuffled = _derangement(len(windows.latents))
        wrong = Windows(windows.latents, windows.states, windows.actions[shuffled])
        target = windows.latents[:, 1:]
        with autocast(self._config.precision, self._device):
            forced, deceived, rolled = module.teacher_forced(windows), module.teacher_forced(wrong), module.rolled_out(windows)
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


def ac_predictor_spec(store: LatentStore, episodes: list[int], config: PosttrainConfig) -> AcPredictorSpec:
    """The predictor for a latent store; where asked, its inputs are standardised by the training episodes' own statistics."""
    actions = np.concatenate([store.actions(index) for index in episodes]).astype(np.float64)
    states = np.concatenate([store.states(index) for index in episodes]).astype(np.float64)
    chosen, (_, height, width) = config.predictor, store.grid
    standardise = chosen.standardise_inputs
    return AcPredictorSpec(
        latent_dim=store.header.embed_dim,
        embed_dim=chosen.embed_dim,
        depth=chosen.depth,
        num_heads=chosen.num_heads,
        mlp_ratio=chosen.mlp_ratio,
        action_dim=actions.shape[-1],
        state_dim=states.shape[-1],
        grid_h=height,
        grid_w=width,
        absolute_positions=chosen.absolute_positions,
        condition_patches=chosen.condition_patches,
        residual=chosen.residual,
        layer_norm=store.layer_norm,
        action_mean=_numbers(actions.mean(axis=0)) if standardise else None,
        action_std=_spread(actions) if standardise else None,
        state_mean=_numbers(states.mean(axis=0)) if standardise else None,
        state_std=_spread(states) if standardise else None,
        conditioning_init_std=chosen.conditioning_init_std,
    )


def _numbers(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 8) for value in values)


def _spread(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    """Standard deviations, with at least 1e-3 (a millimetre, a milliradian) so that an idle axis is not blown up."""
    return _numbers(np.maximum(values.std(axis=0), 1e-3))


def posttrain(
    latents: Path, run_dir: Path, *, config: PosttrainConfig, device: str = "auto", progress: Progress = SILENT
) -> Path:
    """Train an AC predictor on a latent store and return the run's report; a killed run goes on where its last checkpoint is.

    Raises ArtifactError for a missing store, ConfigError for a run directory of another config, TrainingError for a loss that is
    not finite.
    """
    group = ProcessGroup(choose_device(device))
    check_processes(config, group=group)
    store = group.together(lambda: LatentStore.open(latents))
    inputs = {"latents": store.digest, "encoder": store.encoder_digest}
    origin = provenance("posttrain", config, inputs=inputs, seed=config.seed)

    def inputs_now() -> dict[str, str]:
        with closing(LatentStore.open(latents)) as now:
            return {"latents": now.digest}

    with (
        closing(store),
        group.together(
            lambda: RunDirectory(run_dir, config=config, provenance=origin, leader=group.is_leader, inputs_now=inputs_now)
        ) as run,
    ):
        task = group.together(lambda: PosttrainTask(store, config, device=group.device))
        engine = Engine(task.module, task.param_groups(), config=config, group=group)
        seconds = fit(task, run, engine=engine, config=config, progress=progress, description="posttrain")
        group.on_leader(lambda: _publish(task.module.predictor, run, store=store, config=config, origin=origin, seconds=seconds))
    return run_dir / "report.json"


def _publish(
    predictor: AcPredictor,
    run: RunDirectory,
    *,
    store: LatentStore,
    config: PosttrainConfig,
    origin: dict[str, Any],
    seconds: float,
) -> None:
    """Write the shareable model, which names its encoder, then the report, last."""
    about = {
        "kind": "ac_predictor",
        "spec": asdict(predictor.spec),
        "encoder": {"source": store.encoder_source, "digest": store.encoder_digest},
        "preprocessing": store.preprocessing,
        "rate": store.rate,
        "robot": store.robot,
        "state_space": store.state_space,
        "trained_steps": config.steps,
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
        "rollbacks": run.rollbacks(),
        "final": evaluations[-1],
        "digest_model": about["digest"],
    }
    write_report(run.path / "report.json", "posttrain", body, provenance=origin, timing={"seconds": round(seconds, 1)})
