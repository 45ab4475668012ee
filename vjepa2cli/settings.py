"""What can be set: one frozen, strict section a concern, one root a step. `config` loads, overrides and writes these."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[float, float], Field(description="low and high end")]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepConfig(Section):
    """The root of one step's config."""

    step: str

    @classmethod
    def step_name(cls) -> str:
        """The verb that this root belongs to."""
        return str(cls.model_fields["step"].default)


# --- collect ---------------------------------------------------------------------------------------------------------


class MotionMix(Section):
    """Shares of the motions that `collect` records; they need not sum to one."""

    waypoints: Fraction = 0.35
    autoregressive: Fraction = 0.3
    uniform: Fraction = 0.2
    grasp: Fraction = 0.15


class CollectConfig(StepConfig):
    """Record the tabletop arm: how many episodes, how it moves, how it looks."""

    step: Literal["collect"] = "collect"
    seed: Seed = 0
    episodes: Count = 400
    frames_per_episode: Annotated[int, Field(ge=4)] = 32
    image_size: Annotated[int, Field(ge=32)] = 96
    rate: Positive = 4.0
    max_translation: Positive = 0.075
    num_objects: Annotated[int, Field(ge=0, le=6)] = 2
    camera_jitter: Annotated[float, Field(ge=0)] = 0.0
    light_jitter: Fraction = 0.1
    motions: MotionMix = MotionMix()


# --- ingest ----------------------------------------------------------------------------------------------------------


class IngestConfig(StepConfig):
    """Decode once, store at the training short side."""

    step: Literal["ingest"] = "ingest"
    short_side: Annotated[int, Field(ge=16)] = 96
    fps: Annotated[float, Field(gt=0)] | None = None
    min_frames: Count = 2
    max_frames: Count | None = None
    codec: Literal["zstd", "none"] = "zstd"
    shard_frames: Count = 512
    cameras: tuple[Literal["exterior_1", "exterior_2", "wrist"], ...] = ("exterior_1",)
    val_fraction: Fraction = 0.1
    split_seed: Seed = 0


# --- what networks and their training share --------------------------------------------------------------------------


class OptimizerConfig(Section):
    """AdamW; weight decay spares biases and other one-dimensional parameters."""

    lr: Positive = 5.25e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.04
    gradient_clipping: Annotated[float, Field(ge=0)] = 0.0


class ScheduleConfig(Section):
    """Learning rate: linear warm-up from `start_lr`, constant at the peak, decay to `final_lr` over the last steps."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    start_lr: Annotated[float, Field(ge=0)] = 0.0
    decay_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["linear", "cosine"] = "linear"
    final_lr: Annotated[float, Field(ge=0)] = 0.0


class TrainingConfig(StepConfig):
    """What every training step sets."""

    seed: Seed = 0
    steps: Annotated[int, Field(ge=0)] = 100
    batch_size: Count = 8
    precision: Literal["fp32", "bf16"] = "bf16"
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    zero_stage: Literal[0, 1, 2] = 0
    checkpoint_every: Count = 100
    evaluate_every: Count = 100
    log_every: Count = 1
    keep_checkpoints: Count = 2


# --- pretrain --------------------------------------------------------------------------------------------------------


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


# --- encode, precompute ----------------------------------------------------------------------------------------------


class EncodeConfig(StepConfig):
    """Features for people."""

    step: Literal["encode"] = "encode"
    num_frames: Annotated[int, Field(ge=2)] = 16
    fps: Annotated[float, Field(gt=0)] | None = None
    crop: Annotated[int, Field(ge=16)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


class PrecomputeConfig(StepConfig):
    """Frame-causal latents of robot recordings."""

    step: Literal["precompute"] = "precompute"
    crop: Annotated[int, Field(ge=16)] = 96
    geometry: Literal["centre", "wide"] = "centre"
    rate: Annotated[float, Field(gt=0)] | None = None
    batch_frames: Count = 64
    dtype: Literal["float16", "float32"] = "float16"
    precision: Literal["fp32", "bf16"] = "fp32"


# --- posttrain, validate ---------------------------------------------------------------------------------------------


class AcPredictorConfig(Section):
    """The block-causal, action-conditioned predictor."""

    embed_dim: Count = 192
    depth: Count = 4
    num_heads: Count = 3
    mlp_ratio: Positive = 4.0
    absolute_positions: bool = False
    condition_patches: bool = False
    residual: bool = False
    standardise_inputs: bool = False
    conditioning_init_std: Positive = 0.02


class PosttrainConfig(TrainingConfig):
    """V-JEPA 2-AC post-training on cached latents."""

    step: Literal["posttrain"] = "posttrain"
    predictor: AcPredictorConfig = AcPredictorConfig()
    num_frames: Annotated[int, Field(ge=3)] = 8
    rollout_steps: Annotated[int, Field(ge=1)] = 2
    rollout_fraction: Fraction = 1.0
    change_weight: Annotated[float, Field(ge=0)] = 0.0


class CemConfig(Section):
    """The cross-entropy method. Source: notebooks/utils/mpc_utils.py of facebookresearch/vjepa2, arXiv:2506.09985 section 4."""

    samples: Annotated[int, Field(ge=2)] = 400
    iterations: Count = 10
    elites: Annotated[int, Field(ge=2)] = 10
    horizon: Count = 1
    max_translation: Positive = 0.075
    initial_std: Annotated[float, Field(gt=0)] | None = None
    mean_smoothing: Fraction = 0.15
    std_smoothing: Fraction = 0.15
    gripper_mean_smoothing: Fraction = 0.15
    gripper_std_smoothing: Fraction = 0.15
    gripper_bound: Annotated[float, Field(ge=0)] = 0.75
    gripper_dead_zone: Annotated[float, Field(ge=0)] = 0.25
    plan_gripper: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"


class ValidateConfig(StepConfig):
    """A verdict on a world model from held-out recordings."""

    step: Literal["validate"] = "validate"
    seed: Seed = 0
    split: Literal["val", "train", "all"] = "val"
    max_windows: Count = 256
    horizon: Count = 4
    num_inversions: Annotated[int, Field(ge=0)] = 32
    cem: CemConfig = CemConfig(samples=64, iterations=4, elites=6, plan_gripper=False)


# --- probe -----------------------------------------------------------------------------------------------------------


class ProbeConfig(TrainingConfig):
    """An attentive probe on frozen features of labelled windows."""

    step: Literal["probe"] = "probe"
    num_frames: Annotated[int, Field(ge=2)] = 8
    crop: Annotated[int, Field(ge=16)] = 96
    depth: Count = 4
    num_heads: Count = 3
    baselines: tuple[Literal["untrained", "pixels"], ...] = ("untrained", "pixels")
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3, 3e-4)
    selection_fraction: Fraction = 0.2
    feature_batch: Count = 16


# --- plan, evaluate, report ------------------------------------------------------------------------------------------


class PlanConfig(StepConfig):
    """One plan from an observation to a goal image."""

    step: Literal["plan"] = "plan"
    seed: Seed = 0
    cem: CemConfig = CemConfig()


class EvaluateConfig(StepConfig):
    """Closed-loop reach in the tabletop from an image goal."""

    step: Literal["evaluate"] = "evaluate"
    seed: Seed = 1000
    task: Literal["reach"] = "reach"
    episodes: Count = 50
    max_actions: Count = 8
    distance: Range = (0.10, 0.20)
    tolerance: Positive = 0.04
    num_objects: Annotated[int, Field(ge=0, le=6)] = 2
    camera_jitter: Annotated[float, Field(ge=0)] = 0.0
    light_jitter: Fraction = 0.1
    num_videos: Annotated[int, Field(ge=0)] = 4
    cem: CemConfig = CemConfig()


class ReportConfig(StepConfig):
    """What the HTML page shows."""

    step: Literal["report"] = "report"
    title: str = "vjepa2cli report"


STEPS: dict[str, type[StepConfig]] = {
    root.step_name(): root
    for root in (
        CollectConfig,
        IngestConfig,
        PretrainConfig,
        EncodeConfig,
        PrecomputeConfig,
        PosttrainConfig,
        ValidateConfig,
        ProbeConfig,
        PlanConfig,
        EvaluateConfig,
        ReportConfig,
    )
}
