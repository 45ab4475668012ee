"""What pretraining sets: the networks, the clips, the masks, and how the loss is made of them."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section
from vjepa2cli.settings.training import TrainingConfig


class EncoderConfig(Section):
    """A vision transformer over tubelets; `size` names a row of the registry, or `custom` takes the numbers below."""

    size: Literal["custom", "tiny", "small", "base", "large", "huge", "giant", "gigantic"] = "custom"
    embed_dim: Count = 192
    depth: Count = 6
    num_heads: Count = 3
    mlp_ratio: Positive = 4.0
    patch_size: Count = 16
    tubelet_size: Count = 2
    activation_checkpointing: bool = False


class PredictorConfig(Section):
    """The narrow transformer that fills in masked tubelets."""

    embed_dim: Count = 384
    depth: Count = 12
    num_heads: Count = 12
    mlp_ratio: Positive = 4.0
    num_mask_tokens: Count = 2


class ClipConfig(Section):
    """How clips are cut and augmented."""

    num_frames: Annotated[int, Field(ge=2)] = 16
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


class EmaConfig(Section):
    """Momentum of the target encoder, from first to last step."""

    start: Fraction = 0.99925
    end: Fraction = 0.99925


class PretrainConfig(TrainingConfig):
    """V-JEPA 2 pretraining."""

    step: Literal["pretrain"] = "pretrain"
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    clip: ClipConfig = ClipConfig()
    masks: Annotated[tuple[MaskConfig, ...], Field(min_length=1)] = (
        MaskConfig(),
        MaskConfig(num_blocks=2, spatial_scale=(0.7, 0.7)),
    )
    ema: EmaConfig = EmaConfig()
    context_loss_weight: Annotated[float, Field(ge=0)] = 0.0
