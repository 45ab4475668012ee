"""What can be set: one frozen, strict section a concern, one root a step. `config` loads, overrides and writes these."""

from typing import Annotated, Literal

from pydantic import Field

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
from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section, Seed, StepConfig
from vjepa2cli.settings.simulation import CollectConfig, MotionMix, SceneConfig
from vjepa2cli.settings.training import HealthConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from vjepa2cli.settings.validation import ValidateConfig

__all__ = [
    "STEPS",
    "AcPredictorConfig",
    "AnticipationConfig",
    "AugmentConfig",
    "CemConfig",
    "ClipConfig",
    "CollectConfig",
    "ContextLossConfig",
    "EmaConfig",
    "EncodeConfig",
    "EncoderConfig",
    "EnergyMapConfig",
    "EvaluateConfig",
    "GroupConfig",
    "HealthConfig",
    "IngestConfig",
    "MaskConfig",
    "MaskingConfig",
    "MotionMix",
    "OptimizerConfig",
    "PlanConfig",
    "PosttrainConfig",
    "PosttrainQuirksConfig",
    "PrecomputeConfig",
    "PredictorConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ReleasedProtocolConfig",
    "ReleasedQuirksConfig",
    "ReportConfig",
    "SceneConfig",
    "ScheduleConfig",
    "Section",
    "StepConfig",
    "SurpriseConfig",
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
    codec: Literal["zstd", "none"] = "zstd"
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


# --- evaluate, report ------------------------------------------------------------------------------------------------


class EvaluateConfig(StepConfig):
    """Closed-loop reach in the tabletop from an image goal."""

    step: Literal["evaluate"] = "evaluate"
    seed: Seed = 1000
    task: Literal["reach"] = "reach"
    episodes: Count = 50
    max_actions: Count = 8
    distance: Range = (0.10, 0.20)
    tolerance: Positive = 0.04
    scene: SceneConfig = SceneConfig()
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
