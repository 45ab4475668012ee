"""V-JEPA 2 pretraining: predict the features of masked tubelets against an EMA target encoder.

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; app/vjepa/train.py of facebookresearch/vjepa2.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli import config as configs
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.batches import ClipBatches, ClipSource, fixed_clips, mix_seed
from vjepa2cli.data.masking import MaskIds, sample_masks
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import state_digest, to_transformers
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.registry import SIZES
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.engine import Engine, autocast, choose_device, start_process_group
from vjepa2cli.train.health import content_rank, feature_std
from vjepa2cli.train.loop import decay_groups, fit
from vjepa2cli.train.losses import Batch, LossModule, Term
from vjepa2cli.train.run_directory import RunDirectory
from vjepa2cli.train.schedules import ema_momentum

_EVALUATION_CLIPS = 32
_EVALUATION_BATCH = 8
_EVALUATION_STEP = 2**40


class PretrainModule(LossModule):
    """Context encoder, predictor and EMA target encoder; each family of masks has a term, and another for its context."""

    def __init__(
        self, encoder: Encoder, predictor: Predictor, *, num_families: int, context_loss_weight: float, precision: str
    ) -> None:
        """The target encoder starts as a copy of the encoder and receives no gradient."""
        super().__init__()
        self.encoder, self.predictor = encoder, predictor
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self._precision = precision
        target = Term("target_loss", 1 / num_families)
        context = [Term("context_loss", context_loss_weight / num_families)] if context_loss_weight else []
        self.terms = (target, *context) * num_families

    def counts(self, inputs: tuple[Tensor, Sequence[MaskIds]]) -> Tensor:
        """Target tokens, and where the context has a loss its tokens, of each family."""
        _, masks = inputs
        tokens = [(ids.target_ids.numel(), ids.context_ids.numel()) for ids in masks]
        return torch.tensor(tokens, dtype=torch.float64)[:, : self._terms_per_family].flatten()

    def forward(self, inputs: tuple[Tensor, Sequence[MaskIds]]) -> Tensor:
        """Sums over tokens of the absolute error, of clips [B, 3, F, Y, X] under each family of masks."""
        clip, masks = inputs
        with autocast(self._precision, clip.device):
            target = self.target_features(clip)
            return torch.stack([term for index, ids in enumerate(masks) for term in self._mask_loss(clip, target, ids, index)])

    @property
    def _terms_per_family(self) -> int:
        return len({term.name for term in self.terms})

    @torch.no_grad()
    def target_features(self, clip: Tensor) -> Tensor:
        """What is predicted: the target encoder's tokens, layer-normed once more without an affine map, [B, N, D] float32."""
        tokens = self.target_encoder(clip).float()
        return F.layer_norm(tokens, tokens.shape[-1:])

    def _mask_loss(self, clip: Tensor, target: Tensor, ids: MaskIds, index: int) -> list[Tensor]:
        grid = self.encoder.grid(clip)
        context = self.encoder(clip, ids.context_ids)
        predicted, restored = self.predictor(
            context,
            ids.context_ids,
            ids.target_ids,
            grid=grid,
            mask_index=index % self.predictor.spec.num_mask_tokens,
            return_context=True,
        )
        pairs = ((predicted, ids.target_ids), (restored, ids.context_ids))
        return [_error(tokens, _gather(target, chosen)) for tokens, chosen in pairs[: self._terms_per_family]]

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target encoder toward the encoder: target = momentum * target + (1 - momentum) * encoder, in float32."""
        torch._foreach_lerp_(list(self.target_encoder.parameters()), list(self.encoder.parameters()), 1 - momentum)


def _error(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error, mean over dimensions and sum over tokens."""
    return (predicted.float() - target).abs().mean(dim=-1).sum()


def _gather(tokens: Tensor, ids: Tensor) -> Tensor:
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def encoder_spec(config: PretrainConfig) -> EncoderSpec:
    """The encoder that a config describes; a named size takes its numbers from the registry."""
    chosen = config.encoder
    size = chosen if chosen.size == "custom" else SIZES[chosen.size]
    return EncoderSpec(
        embed_dim=size.embed_dim,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_ratio,
        patch_size=chosen.patch_size,
        tubelet_size=chosen.tubelet_size,
        crop=config.clip.crop,
        num_frames=config.clip.num_frames,
    )


class PretrainTask:
    """The pretraining Task of the one training loop."""

    def __init__(self, store: VideoStore, config: PretrainConfig, *, device: torch.device) -> None:
        self._config, self._device = config, device
        spec = encoder_spec(config)
        self._grid = TokenGrid.from_pixels(
            config.clip.num_frames, config.clip.crop, config.clip.crop, patch_size=spec.patch_size, tubelet_size=spec.tubelet_size
        )
        generator = torch.Generator().manual_seed(config.seed)
        encoder = Encoder(spec, generator=generator)
        encoder.activation_checkpointing = config.encoder.activation_checkpointing
        chosen = config.predictor
        predictor = Predictor(
            PredictorSpec(
                encoder_dim=spec.embed_dim,
                embed_dim=chosen.embed_dim,
                depth=chosen.depth,
                num_heads=chosen.num_heads,
                mlp_ratio=chosen.mlp_ratio,
                num_mask_tokens=chosen.num_mask_tokens,
            ),
            generator=generator,
        )
        self.module = PretrainModule(
            encoder,
            predictor,
            num_families=len(config.masks),
            context_loss_weight=config.context_loss_weight,
            precision=config.precision,
        ).to(device)

        def read(source: ClipSource) -> npt.NDArray[np.uint8]:
            return store.frames(source.key, 0, source.num_frames)

        train, held_out = (_sources(store, split) for split in ("train", "val"))
        self._batches = ClipBatches(
            train, read, shape=config.clip, tubelet_size=spec.tubelet_size, batch_size=config.batch_size, seed=config.seed
        )
        self._evaluation = fixed_clips(held_out or train, read, shape=config.clip, count=_EVALUATION_CLIPS)

    def param_groups(self) -> list[dict[str, Any]]:
        """Encoder and predictor, matrices with weight decay and the rest without."""
        optimizer = self._config.optimizer
        return decay_groups(self.module, peak_lr=optimizer.lr, weight_decay=optimizer.weight_decay)

    def _masks(self, step: int, count: int, rows: range) -> list[MaskIds]:
        drawn = []
        for family, shape in enumerate(self._config.masks):
            generator = torch.Generator().manual_seed(mix_seed(self._config.seed, step, family))
            ids = sample_masks(count, self._grid, shape=shape, generator=generator)
            chosen = slice(rows.start, rows.stop)
            drawn.append(MaskIds(ids.context_ids[chosen].to(self._device), ids.target_ids[chosen].to(self._device)))
        return drawn

    def batch(self, step: int, *, rows: range) -> Batch:
        """Clips and one set of masks a family; drawn for the whole batch, so the number of processes changes nothing."""
        clip = self._batches.batch(step, rows=rows).to(self._device)
        return Batch((clip, self._masks(step, self._config.batch_size, rows)), self._batches.ids(step, rows=rows))

    def after_step(self, step: int) -> None:
        """Update the target encoder."""
        self.module.update_target(ema_momentum(step, total=self._config.steps, ema=self._config.ema))

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Loss under fixed masks, and rank and spread of the target features, on fixed held-out clips; `step` plays no part."""
        losses, features = [], []
        for start in range(0, len(self._evaluation), _EVALUATION_BATCH):
            part = self._evaluation[start : start + _EVALUATION_BATCH]
            clip = part.to(self._device)
            masks = self._masks(_EVALUATION_STEP, len(part), range(len(part)))
            losses.append(self.module.mean_loss((clip, masks)) * len(part))
            features.append(self.module.target_features(clip).cpu())
        tokens = torch.cat(features)
        return {"loss": sum(losses) / len(tokens), "rank": content_rank(tokens), "std": feature_std(tokens)}


def _sources(store: VideoStore, split: str) -> list[ClipSource]:
    return [ClipSource(entry.key, entry.num_frames, entry.fps) for entry in store.entries if entry.split == split]


def pretrain(store: Path, run_dir: Path, *, config: PretrainConfig, device: str = "auto", progress: Progress = SILENT) -> Path:
    """Pretrain an encoder on a video store and return the run's report; a killed run goes on where its last checkpoint is.

    Raises ArtifactError for an incomplete store, ConfigError for a run directory of another config, TrainingError for a loss
    that is not finite.
    """
    chosen = choose_device(device)
    videos = VideoStore.open(store)
    rank, _ = start_process_group(chosen)
    origin = provenance("pretrain", config, inputs={"videos": videos.digest}, seed=config.seed)
    with RunDirectory(run_dir, config=config, provenance=origin, leader=rank == 0) as run:
        task = PretrainTask(videos, config, device=chosen)
        engine = Engine(task.module, task.param_groups(), config=config, device=chosen)
        seconds = fit(task, run, engine=engine, config=config, progress=progress, description="pretrain")
        if rank == 0:
            _publish(task.module, run, config=config, origin=origin, seconds=seconds)
        engine.barrier()
    return run_dir / "report.json"


def _publish(
    module: PretrainModule, run: RunDirectory, *, config: PretrainConfig, origin: dict[str, Any], seconds: float
) -> None:
    """Write the shareable model (the EMA encoder and the predictor), then the report, last."""
    tree, tensors = to_transformers(module.target_encoder, module.predictor)
    about = tree["vjepa2cli"] | {
        "trained_steps": config.steps,
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
        "config": configs.to_tree(config),
    }
    write_report(run.path / "report.json", "pretrain", body, provenance=origin, timing={"seconds": round(seconds, 1)})
