"""Learning rates and momentum at the steps that the released schedules are known at."""

import pytest

from vjepa2cli.settings import ContextLossConfig, EmaConfig, ScheduleConfig
from vjepa2cli.train.schedules import context_loss_share, ema_momentum, learning_rate

PRETRAIN = ScheduleConfig(warmup_steps=12000, start_lr=1e-4)
POSTTRAIN = ScheduleConfig(warmup_steps=4500, start_lr=7.5e-5, decay_steps=4500, final_lr=0.0)


@pytest.mark.parametrize(("step", "expected"), [(1, 1.0003542e-4), (6000, 3.125e-4), (12000, 5.25e-4), (240000, 5.25e-4)])
def test_pretraining_warms_up_and_stays(step: int, expected: float) -> None:
    assert learning_rate(step, total=240000, peak=5.25e-4, schedule=PRETRAIN) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(4500, 4.25e-4), (90000, 4.25e-4), (92250, 2.125e-4), (94500, 0.0)])
def test_posttraining_warms_up_stays_and_decays(step: int, expected: float) -> None:
    assert learning_rate(step, total=94500, peak=4.25e-4, schedule=POSTTRAIN) == pytest.approx(expected, abs=1e-12)


def test_cosine_decay_is_half_way_at_half_time_and_never_rises() -> None:
    schedule = ScheduleConfig(decay_steps=100, decay="cosine", final_lr=1e-5)
    rates = [learning_rate(step, total=100, peak=1e-3, schedule=schedule) for step in range(101)]
    assert rates[50] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-5)


def test_momentum_runs_from_start_to_end() -> None:
    ema = EmaConfig(start=0.99, end=1.0)
    assert [ema_momentum(step, total=11, ema=ema) for step in (1, 6, 11)] == pytest.approx([0.99, 0.995, 1.0])


COOLDOWN = ScheduleConfig(decay_steps=12000, final_lr=1.058e-4)


@pytest.mark.parametrize(("step", "expected"), [(1, 5.2497e-4), (6000, 3.154e-4), (12000, 1.058e-4)])
def test_the_cooldown_falls_as_the_released_one_did(step: int, expected: float) -> None:
    assert learning_rate(step, total=12000, peak=5.25e-4, schedule=COOLDOWN) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(("step", "expected"), [(1, 0), (15001, 0), (22501, 0.5), (30001, 1), (40000, 1)])
def test_the_context_loss_rises_between_two_updates(step: int, expected: float) -> None:
    assert context_loss_share(step, ContextLossConfig(rises_from=15000, rises_to=30000)) == pytest.approx(expected)


def test_a_context_loss_without_a_rise_is_whole_from_the_first_update() -> None:
    assert context_loss_share(1, ContextLossConfig()) == 1
