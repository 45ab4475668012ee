"""What pretraining sets: the networks, the clips, the masks, and how the loss is made of them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section
from vjepa2cli.settings.training import TrainingConfig


class EncoderConfig(Section):
    """A vision transformer over tubelets; `size` names a row of the registry, or `custom` takes the numbers below."""

    architecture: Literal["vjepa2", "vjepa2.1"] = "vjepa2"
    size: Literal["custom", "tiny", "small", "base", "large", "huge", "giant", "gigantic"] = "custom"
    embed_dim: Count = 192
    depth: Count = 6
    num_heads: Count = 3
    mlp_ratio: Positive = 4.0
    patch_size: Count = 16
    tubelet_size: Count = 2
    activation_checkpointing: bool = False


class PredictorConfig(Section):
    """The narrow transformer that fills in masked tubelets; V-JEPA 2.1 may read and predict four `levels` of the encoder."""

    embed_dim: Count = 384
    depth: Count = 12
    num_heads: Count = 12
    mlp_ratio: Positive = 4.0
    num_mask_tokens: Count = 2
    levels: Literal[1, 4] = 1
    activation_checkpointing: bool = False


class ClipConfig(Section):
    """How clips are cut and augmented; `media` says from what, and a clip of one frame is an image to V-JEPA 2.1."""

    media: Literal["any", "video", "image"] = "any"
    num_frames: Count = 16
    fps: Annotated[float, Field(gt=0)] | None = 4.0
    crop: Annotated[int, Field(ge=16)] = 256
    scale: Range = (0.3, 1.0)
    aspect_ratio: Range = (0.75, 1.35)
    horizontal_flip: Fraction = 0.5
    static_fraction: Fraction = 0.0


class MaskConfig(Section):
    """One family of block masks. Source: arXiv:2506.09985, appendix; sizes are shares of the frame and of the clip."""

    num_blocks: Count = 8
    spatial_scale: Annotated[tuple[Fraction, Fraction], Field()] = (0.15, 0.15)
    temporal_scale: Annotated[tuple[Fraction, Fraction], Field()] = (1.0, 1.0)
    aspect_ratio: Range = (0.75, 1.5)
    max_temporal_keep: Fraction = 1.0
    weight: Positive = 1.0


class MaskingConfig(Section):
    """How the masks of a batch hang together.

    `rows_per_draw` clips (null: the whole batch) share a block size and the number of tokens that they keep: that of their
    `shortest` mask, as released, so that fewer are kept of larger batches; or a `fixed` number, the same for every batch.
    """

    kept: Literal["shortest", "fixed"] = "shortest"
    rows_per_draw: Count | None = None


class GroupConfig(Section):
    """Clips of another kind in every batch, beside those of `clip`: of another length, or images.

    What is null is as in `masking` and `context_loss`.
    """

    batch_size: Count
    rows_per_draw: Count | None = None
    clip: ClipConfig = ClipConfig()
    masks: Annotated[tuple[MaskConfig, ...], Field(min_length=1)] = (MaskConfig(),)
    weight: Positive = 1.0
    context_loss_weight: Annotated[float, Field(ge=0)] | None = None


class ContextLossConfig(Section):
    """A loss on what the encoder saw: its weight rises from 0 to `weight` between two updates counted from the first of all.

    `by_distance` divides a token's loss by the root of its distance to the nearest target. Source: V-JEPA 2.1.
    """

    weight: Annotated[float, Field(ge=0)] = 0.0
    by_distance: bool = False
    rises_from: Annotated[int, Field(ge=0)] = 0
    rises_to: Annotated[int, Field(ge=0)] = 0


class EmaConfig(Section):
    """Momentum of the target encoder, from first to last step."""

    start: Fraction = 0.99925
    end: Fraction = 0.99925


class ReleasedQuirksConfig(Section):
    """Defects of the released training, for comparisons with it; each is off.

    `mask_token_per_group`: a mask token stands for a kind of clip, not for a family of masks. `correlated_masks`: every set of
    `rows_per_draw` clips (there: every process) and every family of masks draws from the same numbers. `replayed_draws`: a run
    that continues another begins again at the clips, masks and context-loss weight of the first update. `stretched_clips`: frames
    lie a little further apart than asked for.
    """

    mask_token_per_group: bool = False
    correlated_masks: bool = False
    replayed_draws: bool = False
    stretched_clips: bool = False


class PretrainConfig(TrainingConfig):
    """V-JEPA 2 and 2.1 pretraining; a run that `continues` another is given that one by `--init-from`.

    `unreadable` says what follows where frames of the store cannot be read. `probe_windows` labelled windows of each split, where
    there are any, tell at every evaluation how well a linear probe separates their classes.
    """

    CHANGEABLE: ClassVar[tuple[str, ...]] = (*TrainingConfig.CHANGEABLE, "unreadable")

    step: Literal["pretrain"] = "pretrain"
    continues: bool = False
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    clip: ClipConfig = ClipConfig()
    masks: Annotated[tuple[MaskConfig, ...], Field(min_length=1)] = (
        MaskConfig(),
        MaskConfig(num_blocks=2, spatial_scale=(0.7, 0.7)),
    )
    masking: MaskingConfig = MaskingConfig()
    beside: tuple[GroupConfig, ...] = ()
    ema: EmaConfig = EmaConfig()
    context_loss: ContextLossConfig = ContextLossConfig()
    unreadable: Literal["stop", "skip"] = "stop"
    probe_windows: Annotated[int, Field(ge=0)] = 64
    released_quirks: ReleasedQuirksConfig = ReleasedQuirksConfig()

    @property
    def groups(self) -> tuple[GroupConfig, ...]:
        """Every kind of clip in a batch, that of `clip` first."""
        first = GroupConfig(batch_size=self.batch_size, clip=self.clip, masks=self.masks)
        return tuple(
            group.model_copy(update={"rows_per_draw": group.rows_per_draw or self.masking.rows_per_draw})
            for group in (first, *self.beside)
        )

    @property
    def mask_token_indices(self) -> tuple[tuple[int, ...], ...]:
        """The mask token of each family of masks of each group: each its own, unless a quirk says one a group."""
        counts = [len(group.masks) for group in self.groups]
        if self.released_quirks.mask_token_per_group:
            return tuple((index,) * count for index, count in enumerate(counts))
        return tuple(tuple(range(sum(counts[:index]), sum(counts[: index + 1]))) for index in range(len(counts)))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what each key allows alone and not together."""
        v21 = self.encoder.architecture == "vjepa2.1"
        needed = max(map(max, self.mask_token_indices)) + 1
        faults = {
            "predictor.levels: 4 needs encoder.architecture: vjepa2.1": self.predictor.levels == 4 and not v21,
            "clip.num_frames: 1 needs encoder.architecture: vjepa2.1; V-JEPA 2 sees an image as a clip that stands still": not v21
            and any(group.clip.num_frames == 1 for group in self.groups),
            f"predictor.num_mask_tokens: {self.predictor.num_mask_tokens} is not enough; {needed} kinds of masks need "
            f"one each": self.predictor.num_mask_tokens < needed,
            "rows_per_draw does not divide the batch_size beside it": any(
                group.batch_size % (group.rows_per_draw or 1) for group in self.groups
            ),
            "context_loss.rises_to lies before rises_from": self.context_loss.rises_to < self.context_loss.rises_from,
        }
        for fault, found in faults.items():
            if found:
                raise ValueError(fault)
        return self
