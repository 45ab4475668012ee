"""What making latents and training on them sets: how frames are encoded, and the predictor that learns from what comes of it."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section, Seed, StepConfig
from vjepa2cli.settings.training import TrainingConfig


class ViewsConfig(Section):
    """Other views of every training episode besides the plain one, and what they are drawn from; the first one is the plain."""

    count: Count = 1
    seed: Seed = 0
    scale: Range = (0.7, 1.0)
    aspect_ratio: Range = (0.9, 1.1)
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: Fraction = 0.03


class PrecomputeConfig(StepConfig):
    """Frame-causal latents of robot recordings; `dtype` int8 keeps a scale per token."""

    step: Literal["precompute"] = "precompute"
    crop: Annotated[int, Field(ge=16)] = 96
    geometry: Literal["centre", "wide"] = "centre"
    rate: Annotated[float, Field(gt=0)] | None = None
    batch_frames: Count = 64
    dtype: Literal["float16", "bfloat16", "int8", "float32"] = "float16"
    precision: Literal["fp32", "bf16"] = "fp32"
    views: ViewsConfig = ViewsConfig()


class AcPredictorConfig(Section):
    """The block-causal, action-conditioned predictor; `extrinsics` gives it the camera's as a token, where they are recorded."""

    embed_dim: Count = 192
    depth: Count = 4
    num_heads: Count = 3
    mlp_ratio: Positive = 4.0
    absolute_positions: bool = False
    condition_patches: bool = False
    residual: bool = False
    standardise_inputs: bool = False
    conditioning_init_std: Positive = 0.02
    extrinsics: bool = False
    activation_checkpointing: bool = False


class PosttrainQuirksConfig(Section):
    """A defect of the released training, for comparisons with it.

    `shifted_rollout`: the rollout begins with the prediction of the step after the one that it should begin with.
    """

    shifted_rollout: bool = False


class PosttrainConfig(TrainingConfig):
    """V-JEPA 2-AC post-training on cached latents.

    `trainable` is all of the predictor, or only what embeds actions, states and extrinsics, of one given by `--init-from`.
    """

    step: Literal["posttrain"] = "posttrain"
    predictor: AcPredictorConfig = AcPredictorConfig()
    num_frames: Annotated[int, Field(ge=2)] = 8
    rollout_steps: Annotated[int, Field(ge=1)] = 2
    rollout_fraction: Fraction = 1.0
    change_weight: Annotated[float, Field(ge=0)] = 0.0
    trainable: Literal["all", "conditioning"] = "all"
    released_quirks: PosttrainQuirksConfig = PosttrainQuirksConfig()
