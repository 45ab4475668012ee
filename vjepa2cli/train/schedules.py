"""Learning rate and momentum as functions of the step."""

import math

from vjepa2cli.settings import ContextLossConfig, EmaConfig, ScheduleConfig


def learning_rate(step: int, *, total: int, peak: float, schedule: ScheduleConfig) -> float:
    """The rate of update `step` (1-based): linear warm-up, constant, then decay to `final_lr` over the last steps.

    Source: WSDSchedule in src/utils/schedulers.py of facebookresearch/vjepa2.
    """
    if step < schedule.warmup_steps:
        return schedule.start_lr + step / schedule.warmup_steps * (peak - schedule.start_lr)
    remaining = total - step
    if remaining >= schedule.decay_steps:
        return peak
    share = remaining / schedule.decay_steps
    if schedule.decay == "cosine":
        share = 0.5 - 0.5 * math.cos(math.pi * share)
    return schedule.final_lr + share * (peak - schedule.final_lr)


def ema_momentum(step: int, *, total: int, ema: EmaConfig) -> float:
    """Momentum of the target encoder after update `step` (1-based)."""
    return ema.start + (step - 1) / max(1, total - 1) * (ema.end - ema.start)


def context_loss_share(step: int, loss: ContextLossConfig) -> float:
    """The share of its full weight that the context loss has in update `step` (1-based).

    Source: `lambda_progressive` in app/vjepa_2_1/train.py of facebookresearch/vjepa2.
    """
    done = step - 1
    if done >= loss.rises_to:
        return 1.0
    return max(0.0, (done - loss.rises_from) / (loss.rises_to - loss.rises_from))
