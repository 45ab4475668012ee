"""What can be set: one frozen, strict section a concern, one root a step. `config` loads, overrides and writes these."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.evaluation import CloningConfig, EvaluateConfig
from vjepa2cli.settings.latents import AcPredictorConfig, PosttrainConfig, PosttrainQuirksConfig, PrecomputeConfig, ViewsConfig
from vjepa2cli.settings.planning import CemConfig, EnergyMapConfig, PlanConfig
from vjepa2cli.settings.pretraining import (
    ClipConfig,
    ContextLossConfig,
    EmaConfig,
    EncoderConfig,
    GroupConfig,
    MaskConfig,
    MaskingConfig,
    PredictorConfig,
    PretrainConfig,
    ReleasedQuirksConfig,
)
from vjepa2cli.settings.probing import AnticipationConfig, AugmentConfig, ProbeConfig, ReleasedProtocolConfig
from vjepa2cli.settings.robot import RobotConfig
from vjepa2cli.settings.sections import Count, Fraction, Section, Seed, StepConfig
from vjepa2cli.settings.simulation import (
    CollectConfig,
    GraspConfig,
    MotionMix,
    PickAndPlaceConfig,
    PushConfig,
    ReachConfig,
    ReachWithObjectConfig,
    SceneConfig,
    ShiftName,
    TaskName,
    TasksConfig,
)
from vjepa2cli.settings.training import HealthConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from vjepa2cli.settings.validation import ValidateConfig

__all__ = [
    "STEPS",
    "AcPredictorConfig",
    "AnticipationConfig",
    "AugmentConfig",
    "CemConfig",
    "ClipConfig",
    "CloningConfig",
    "CollectConfig",
    "ContextLossConfig",
    "EmaConfig",
    "EncodeConfig",
    "EncoderConfig",
    "EnergyMapConfig",
    "EvaluateConfig",
    "GraspConfig",
    "GroupConfig",
    "HealthConfig",
    "IngestConfig",
    "MaskConfig",
    "MaskingConfig",
    "MotionMix",
    "OptimizerConfig",
    "PickAndPlaceConfig",
    "PlanConfig",
    "PosttrainConfig",
    "PosttrainQuirksConfig",
    "PrecomputeConfig",
    "PredictorConfig",
    "PretrainConfig",
    "ProbeConfig",
    "PushConfig",
    "ReachConfig",
    "ReachWithObjectConfig",
    "ReleasedProtocolConfig",
    "ReleasedQuirksConfig",
    "ReportConfig",
    "SceneConfig",
    "ScheduleConfig",
    "Section",
    "ShiftName",
    "StepConfig",
    "SurpriseConfig",
    "TaskName",
    "TasksConfig",
    "TrainingConfig",
    "ValidateConfig",
    "ViewsConfig",
]

# --- ingest ----------------------------------------------------------------------------------------------------------


class DropConfig(Section):
    """What is left out: what looks like another entry, is black or frozen most of its time, or is shorter, in seconds."""

    duplicates: bool = False
    black: bool = False
    frozen: bool = False
    shorter_than: Annotated[float, Field(ge=0)] = 0.0


class IngestConfig(StepConfig):
    """Decode once, store at the training short side."""

    step: Literal["ingest"] = "ingest"
    short_side: Annotated[int, Field(ge=16)] = 96
    fps: Annotated[float, Field(gt=0)] | None = None
    min_frames: Count = 2
    max_frames: Count | None = None
    codec: Literal["none", "zstd"] = "none"
    shard_frames: Count = 512
    cameras: tuple[str, ...] = ()
    robot: RobotConfig | None = None
    shots: Literal["keep", "report", "split"] = "keep"
    drop: DropConfig = DropConfig()
    val_fraction: Fraction = 0.1
    split_seed: Seed = 0


# --- encode ----------------------------------------------------------------------------------------------------------


Side = Annotated[int, Field(ge=16)]


class EncodeConfig(StepConfig):
    """Features for people; `stride` is the number of frames between the starts of two windows."""

    step: Literal["encode"] = "encode"
    mode: Literal["tokens", "pooled", "per-frame", "window"] = "tokens"
    num_frames: Annotated[int, Field(ge=2)] = 16
    stride: Count | None = None
    fps: Annotated[float, Field(gt=0)] | None = None
    crop: Side | tuple[Side, Side] | None = None
    layers: tuple[int, ...] = ()
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class SurpriseConfig(StepConfig):
    """Prediction error over time. Frames: None is the encoder's own or 16, half of these, and one tubelet."""

    step: Literal["surprise"] = "surprise"
    num_frames: Annotated[int, Field(ge=2)] | None = None
    context_frames: Count | None = None
    stride: Count | None = None
    fps: Annotated[float, Field(gt=0)] | None = 4.0
    crop: Side | tuple[Side, Side] | None = None
    batch_windows: Count = 8
    precision: Literal["auto", "fp32", "bf16"] = "auto"


# --- report ---------------------------------------------------------------------------------------------------------


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
        SurpriseConfig,
        PrecomputeConfig,
        PosttrainConfig,
        ValidateConfig,
        ProbeConfig,
        PlanConfig,
        EvaluateConfig,
        ReportConfig,
    )
}
