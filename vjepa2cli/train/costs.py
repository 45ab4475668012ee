"""What a pretraining config costs, computed from its numbers alone: tokens, floating-point operations, bytes, memory.

A multiplication and an addition count as two operations; matrix products, convolutions and attention are counted, the rest is
small beside them. benchmarks/pretrain.py holds these figures against a run.
"""

import statistics
from dataclasses import dataclass
from functools import cached_property

from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.models.encoder import EncoderSpec
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.networks import clip_grid, encoder_spec, predictor_spec

_SAMPLED_ROWS = 240
"""Clips over which the mean number of kept and predicted tokens is taken, give or take a draw."""

_BACKWARD, _ATTENTION_BACKWARD = 2.0, 2.5
"""Operations of a backward pass for each of the forward pass; attention computes its scores again, as fused kernels do."""


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks."""

    dim: int
    depth: int
    hidden_dim: int
    num_heads: int

    @property
    def parameters(self) -> int:
        """Weights and biases of attention, MLP and both norms."""
        dim, hidden = self.dim, self.hidden_dim
        return self.depth * (4 * dim * dim + 2 * dim * hidden + 9 * dim + hidden)

    def linear_flops(self, num_tokens: float) -> float:
        """Forward, of the linear maps on a clip of so many tokens."""
        return 2 * num_tokens * self.depth * (4 * self.dim**2 + 2 * self.dim * self.hidden_dim)

    def attention_flops(self, num_tokens: float) -> float:
        """Forward, of the two products of attention."""
        return 4 * num_tokens**2 * self.depth * self.dim

    def training_flops(self, num_tokens: float, *, checkpointing: bool) -> float:
        """Forward and backward, with the forward pass made again where activations are not kept."""
        linear, attention, again = self.linear_flops(num_tokens), self.attention_flops(num_tokens), float(checkpointing)
        return (1 + again + _BACKWARD) * linear + (1 + again + _ATTENTION_BACKWARD) * attention

    def block_bytes(self, num_tokens: float, *, bf16: bool) -> float:
        """What the backward pass of one block needs kept of a clip.

        Of each token twice what a norm reads and gives, q, k and v before and after their turn, what attention gives, and what
        the MLP's activation reads and gives. Norms read float32.
        """
        return num_tokens * (24 * self.dim + 4 * self.hidden_dim if bf16 else 40 * self.dim + 8 * self.hidden_dim)

    def activation_bytes(self, num_tokens: float, *, checkpointing: bool, bf16: bool) -> float:
        """What the backward pass of one clip needs kept: every block's, or with checkpointing the input of each."""
        angles = num_tokens * 8 * self.dim / self.num_heads
        kept = 4 * self.dim * num_tokens if checkpointing else self.block_bytes(num_tokens, bf16=bf16)
        return angles + self.depth * kept


@dataclass(frozen=True)
class FamilyCost:
    """The mean number of tokens that a clip keeps, and of those predicted, under one family of masks."""

    kept: float
    predicted: float


@dataclass(frozen=True)
class GroupCost:
    """One kind of clip: how many in a batch, of how many tokens, and the families of masks that they are seen through."""

    clips: int
    frames: int
    crop: int
    fps: float | None
    tokens: int
    families: tuple[FamilyCost, ...]

    @property
    def seconds(self) -> float | None:
        """Seconds of video in a clip; None where it takes every stored frame."""
        return 0.0 if self.frames == 1 else self.frames / self.fps if self.fps else None


@dataclass(frozen=True)
class Costs:
    """The costs of a config; see the properties."""

    config: PretrainConfig
    groups: tuple[GroupCost, ...]

    @cached_property
    def encoder(self) -> Blocks:
        """The encoder's blocks."""
        spec = encoder_spec(self.config)
        return Blocks(spec.embed_dim, spec.depth, int(spec.embed_dim * spec.mlp_ratio), spec.num_heads)

    @cached_property
    def predictor(self) -> Blocks:
        """The predictor's blocks."""
        spec = predictor_spec(self.config)
        return Blocks(spec.embed_dim, spec.depth, int(spec.embed_dim * spec.mlp_ratio), spec.num_heads)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that the target encoder reads: those of all clips of a batch."""
        return sum(group.clips * group.tokens for group in self.groups)

    @property
    def context_tokens_per_step(self) -> float:
        """Tokens that the context encoder reads under all families of masks."""
        return sum(group.clips * family.kept for group in self.groups for family in group.families)

    @property
    def predictor_tokens_per_step(self) -> float:
        """Tokens that the predictor reads: context and targets."""
        return sum(group.clips * (family.kept + family.predicted) for group in self.groups for family in group.families)

    @property
    def seconds_of_video_per_step(self) -> float | None:
        """Seconds of video in a batch; None where a kind of clip takes every stored frame, whatever their rate."""
        seconds = [group.clips * group.seconds for group in self.groups if group.seconds is not None]
        return sum(seconds) if len(seconds) == len(self.groups) else None

    @property
    def flops_per_step(self) -> float:
        """Operations of one update on the whole batch."""
        return sum(group.clips * self._flops(group) for group in self.groups)

    def _flops(self, group: GroupCost) -> float:
        """Of one clip: the target encoder once, context encoder and predictor forward and backward for each family."""
        spec, encoder, predictor = encoder_spec(self.config), self.encoder, self.predictor
        patch = 2 * spec.embed_dim * _patch_values(spec, group)
        total = group.tokens * patch + encoder.linear_flops(group.tokens) + encoder.attention_flops(group.tokens)
        checkpointing = self.config.encoder.activation_checkpointing, self.config.predictor.activation_checkpointing
        for family in group.families:
            both = family.kept + family.predicted
            total += 2 * family.kept * patch  # pixels have no gradient
            total += encoder.training_flops(family.kept, checkpointing=checkpointing[0])
            total += predictor.training_flops(both, checkpointing=checkpointing[1])
            total += (1 + _BACKWARD) * 2 * (family.kept * self._embed_size + self._projected(family) * self._proj_size)
        return total

    def _projected(self, family: FamilyCost) -> float:
        losses = self.config.context_loss.weight or any(group.context_loss_weight for group in self.config.beside)
        return family.predicted + (family.kept if losses else 0)

    @property
    def _embed_size(self) -> int:
        """Weights between encoder and predictor."""
        dim, levels = self.encoder.dim, self.config.predictor.levels
        return dim * self.predictor.dim + (levels * dim * dim if levels > 1 else 0)

    @property
    def _proj_size(self) -> int:
        """Weights from the predictor to the levels that it predicts."""
        return self.predictor.dim * self.encoder.dim * self.config.predictor.levels

    @property
    def encoder_parameters(self) -> int:
        """As released; positions have none."""
        spec, dim = encoder_spec(self.config), self.encoder.dim
        tubelet = spec.in_channels * spec.patch_size**2 * dim
        if self.config.encoder.architecture == "vjepa2.1":
            return self.encoder.parameters + (spec.tubelet_size + 1) * tubelet + 2 * dim + 2 * dim + 8 * dim
        return self.encoder.parameters + spec.tubelet_size * tubelet + dim + 2 * dim

    @property
    def predictor_parameters(self) -> int:
        """As released."""
        dim, own, levels = self.encoder.dim, self.predictor.dim, self.config.predictor.levels
        shared = self.predictor.parameters + self._embed_size + own + 2 * own + self.config.predictor.num_mask_tokens * own
        outputs = self._proj_size + levels * dim
        if self.config.encoder.architecture == "vjepa2.1":
            return shared + 2 * outputs + 2 * own + (dim if levels > 1 else 0)
        return shared + outputs

    def state_bytes(self, processes: int) -> float:
        """Weights, gradients and both moments of the trained networks, and the target encoder, float32, on one process.

        ZeRO 1 divides the moments over the processes, ZeRO 2 the gradients as well; either keeps a float32 copy of its share of
        the weights. Under bf16 a rounded copy of the trained weights is held during a step.
        """
        trained = self.encoder_parameters + self.predictor_parameters
        stage = self.config.zero_stage
        moments = 8 * trained / processes if stage else 8 * trained
        gradients = 4 * trained / processes if stage == 2 else 4 * trained
        copies = (4 * trained / processes if stage else 0) + (2 * trained if self.config.precision == "bf16" else 0)
        return 4 * trained + gradients + moments + copies + 4 * self.encoder_parameters

    def activation_bytes(self, processes: int) -> float:
        """The clips of one process, or as many as it holds at once, and what their backward pass needs kept."""
        rows = self.config.batch_size / processes
        share = min(rows, self.config.micro_batch_size or rows) / self.config.batch_size
        kept = sum(group.clips * self._kept_bytes(group) for group in self.groups)
        return (kept + max(group.clips * self._recomputed_bytes(group) for group in self.groups)) * share

    def _kept_bytes(self, group: GroupCost) -> float:
        bf16, encoder, predictor = self._is_bf16, self.config.encoder, self.config.predictor
        values = _patch_values(encoder_spec(self.config), group)
        total = 4.0 * group.tokens * values
        for family in group.families:
            both = family.kept + family.predicted
            total += (2 if bf16 else 4) * family.kept * values
            total += self.encoder.activation_bytes(family.kept, checkpointing=encoder.activation_checkpointing, bf16=bf16)
            total += self.predictor.activation_bytes(both, checkpointing=predictor.activation_checkpointing, bf16=bf16)
            # Between the networks and after them: what norms and projections read, and the sign of every error.
            levels = self.config.predictor.levels
            total += 4 * self.encoder.dim * (family.kept * (2 if levels == 1 else 3 + levels) + self._projected(family) * levels)
            total += 8 * self.predictor.dim * both
        return total

    def _recomputed_bytes(self, group: GroupCost) -> float:
        """Of the one block that is computed again at a time."""
        parts = [(self.encoder, self.config.encoder.activation_checkpointing, family.kept) for family in group.families]
        parts += [
            (self.predictor, self.config.predictor.activation_checkpointing, family.kept + family.predicted)
            for family in group.families
        ]
        return max(blocks.block_bytes(tokens, bf16=self._is_bf16) if again else 0.0 for blocks, again, tokens in parts)

    @property
    def _is_bf16(self) -> bool:
        return self.config.precision == "bf16"

    def bytes_read_per_step(self, height: int, width: int) -> int:
        """Bytes of pixels that a batch is cut from, where frames are stored at this size without compression."""
        return sum(group.clips * group.frames for group in self.groups) * height * width * 3


def _patch_values(spec: EncoderSpec, group: GroupCost) -> int:
    """Numbers that a token is made of."""
    return spec.in_channels * spec.patch_size**2 * (1 if group.frames == 1 else spec.tubelet_size)


def compute_costs(config: PretrainConfig) -> Costs:
    """The costs of a config; kept and predicted tokens are means over draws of its masks."""
    groups = []
    for index, group in enumerate(config.groups):
        grid = clip_grid(config, index)
        rows = min(group.rows_per_draw or group.batch_size, group.batch_size)
        masks = MaskBatches(grid, group.masks, batch_size=rows, seed=0, group=index, kept=config.masking.kept)
        num_draws = 1 if config.masking.kept == "fixed" else max(2, _SAMPLED_ROWS // rows)
        drawn = [families for step in range(num_draws) for _, families in masks.draws(step, rows=range(rows))]
        families = tuple(
            FamilyCost(
                statistics.fmean(ids[family].context_ids.shape[1] for ids in drawn),
                statistics.fmean(ids[family].target_ids.shape[1] for ids in drawn),
            )
            for family in range(len(group.masks))
        )
        clip = group.clip
        groups.append(GroupCost(group.batch_size, clip.num_frames, clip.crop, clip.fps, grid.num_tokens, families))
    return Costs(config, tuple(groups))
