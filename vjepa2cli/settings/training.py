"""What every training step sets."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.sections import Count, Fraction, Positive, Section, Seed, StepConfig


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
