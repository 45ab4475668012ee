"""What every training step sets."""

from typing import Annotated, ClassVar, Literal

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


class HealthConfig(Section):
    """What counts as a fault, and what follows.

    A loss, a gradient or an evaluation that is not finite always does; so does a loss above `spike_factor` times the median of
    the last steps, and an evaluation whose rank or spread is below its share of what it was before the first step. `roll_back`
    goes on from the last good checkpoint with `rate_factor` times the learning rate, without the batch that failed.
    """

    on_fault: Literal["stop", "roll_back"] = "stop"
    spike_factor: Annotated[float, Field(gt=1)] = 3.0
    min_rank_share: Fraction = 0.1
    min_spread_share: Fraction = 0.1
    rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_rollbacks: Annotated[int, Field(ge=0)] = 3


class TrainingConfig(StepConfig):
    """What every training step sets; `batch_size` is that of all processes, of which each holds `micro_batch_size` at once."""

    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        "micro_batch_size",
        "zero_stage",
        "offload_optimizer",
        "keep_checkpoints",
        "tensorboard",
        "health",
    )
    """How a machine does the work and what follows a fault, not what is learnt: a resumed run may change these."""
    WATCHED: ClassVar[bool] = True
    """Whether a state is evaluated before each checkpoint, so that none is kept of one that is ruined or has collapsed."""

    seed: Seed = 0
    steps: Annotated[int, Field(ge=0)] = 100
    batch_size: Count = 8
    micro_batch_size: Count | None = None
    precision: Literal["fp32", "bf16"] = "bf16"
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    zero_stage: Literal[0, 1, 2] = 0
    offload_optimizer: bool = False
    checkpoint_every: Count = 100
    evaluate_every: Count = 100
    log_every: Count = 1
    tensorboard: bool = False
    keep_checkpoints: Count = 2
    health: HealthConfig = HealthConfig()
