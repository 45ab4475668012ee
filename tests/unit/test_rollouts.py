"""Candidates in parts, under a deadline, in bfloat16 and with a past: the same energies, in the memory and time allowed."""

import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vjepa2cli.data.poses import pose_compose
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.world_model import WorldModel, rollout
from vjepa2cli.planning.clock import Deadline, Pace
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.rollouts import Rollouts, rows_at_once
from vjepa2cli.settings import CemConfig

SPEC = AcPredictorSpec(24, 48, 3, 4, grid_h=3, grid_w=4)


def world(spec: AcPredictorSpec = SPEC) -> WorldModel:
    ac = AcPredictor(spec, generator=generator_for(0))
    with torch.no_grad():
        for seed, parameter in enumerate(ac.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator_for(seed)))
    return WorldModel(None, ac.eval(), compose=pose_compose)


def moments(count: int = 1, spec: AcPredictorSpec = SPEC) -> tuple[Tensor, Tensor, Tensor]:
    """Latents [T, H*W, D], states [T, 7] and a goal."""
    latents = torch.randn(count + 1, 12, spec.latent_dim, generator=generator_for(1))
    return latents[:-1], torch.rand(count, 7, generator=generator_for(2)) * 0.5, latents[-1]


def candidates(count: int, horizon: int) -> Tensor:
    return 0.1 * torch.randn(count, horizon, 7, generator=generator_for(3))


@pytest.mark.parametrize("horizon", [1, 3])
def test_energies_do_not_depend_on_how_candidates_are_parted(horizon: int):
    (latent,), (state,), goal = moments()
    actions, found = candidates(30, horizon), []
    for memory in (1.0, 2e-4, 1e-9):
        rollouts = Rollouts(world(), CemConfig(horizon=horizon, max_memory_gib=memory))
        found.append(rollouts.energy(latent, state, goal, actions))
    assert Rollouts(world(), CemConfig(max_memory_gib=1e-9)).rows(latent, horizon) == 1
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-6)
    whole = rollout(world().ac, latent.expand(30, 1, -1, -1), state.expand(30, 1, -1), actions, compose=pose_compose)
    torch.testing.assert_close(found[0], (whole[:, -1] - goal).abs().mean((1, 2)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("horizon", [1, 4])
def test_bfloat16_ranks_candidates_as_float32_does_and_leaves_the_world_model_alone(horizon: int):
    """Rounding moves an energy by less than a tenth of the spread over candidates, whose actions are of size 1."""
    (latent,), (state,), goal = moments()
    model, actions = world(), 10 * candidates(100, horizon)
    exact = Rollouts(model, CemConfig()).energy(latent, state, goal, actions)
    rounded = Rollouts(model, CemConfig(precision="bf16")).energy(latent, state, goal, actions)
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < exact.std() / 10
    assert torch.corrcoef(torch.stack((rounded, exact)))[0, 1] > 0.99
    assert torch.equal(Rollouts(model, CemConfig()).energy(latent, state, goal, actions), exact)


def test_planner_sees_as_many_frames_as_it_is_told():
    """Three frames: the energies of a cached past are those of the whole rollout with the actions between its states."""
    latents, states, goal = moments(3)
    actions, model = candidates(5, 2), world()
    controller = Controller(model, CemConfig(horizon=2, context_frames=3))
    past = controller.past(latents, states)
    found = controller.energy(latents[-1], states[-1], goal, actions, past=past)
    between = controller.space.delta(states).expand(5, -1, -1)
    whole = rollout(
        model.ac,
        latents.expand(5, -1, -1, -1),
        states.expand(5, -1, -1),
        torch.cat((between, actions), dim=1),
        compose=pose_compose,
    )
    torch.testing.assert_close(found, (whole[:, -1] - goal).abs().mean((1, 2)), rtol=0, atol=1e-5)
    assert not torch.allclose(found, controller.energy(latents[-1], states[-1], goal, actions))
    assert Controller(model, CemConfig()).past(latents, states) is None
    assert controller.past(latents[:1], states[:1]) is None


class LiveMemory(TorchDispatchMode):
    """Bytes of all tensors that are alive, as far as torch's operations have made them, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        place = tensor.untyped_storage().data_ptr()
        self._holders[place] = self._holders.get(place, 0) + 1
        self._sizes[place] = tensor.untyped_storage().nbytes()
        weakref.finalize(tensor, self._release, place)
        self.peak = max(self.peak, sum(self._sizes.values()))

    def _release(self, place: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place], self._sizes[place]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("horizon", "context"), [(1, 1), (1, 3), (4, 1)])
def test_memory_of_the_parts_is_what_is_allowed(precision: str, horizon: int, context: int):
    """The estimate by which candidates are parted, against all tensors alive at any moment of the prediction of one part."""
    latents, states, _ = moments(context)
    config = CemConfig(horizon=horizon, context_frames=context, precision=precision, max_memory_gib=1 / 64)  # type: ignore[arg-type]
    rollouts, past = Rollouts(world(), config), Controller(world(), config).past(latents, states)
    rows = rows_at_once(SPEC, 12, horizon, config=config, device=torch.device("cuda"))  # not held to the cache of a CPU
    actions = candidates(rows, horizon)
    with LiveMemory() as live:
        rollouts._roll(latents[-1], states[-1], actions, past)
    # A CPU in bfloat16 holds a little less than half: it turns queries and keys a part at a time.
    assert 0.45 * 2**24 < live.peak < 2**24


def test_rows_fall_with_horizon_size_and_precision():
    def rows(**change: object) -> int:
        given = {"spec": SPEC, "horizon": 2, "precision": "fp32"} | change
        config = CemConfig(max_memory_gib=0.01, precision=given["precision"])  # type: ignore[arg-type]
        return rows_at_once(given["spec"], 12, given["horizon"], config=config, device=torch.device("cuda"))  # type: ignore[arg-type]

    assert rows() > rows(horizon=4) > rows(horizon=16) >= 1
    assert rows(precision="bf16") > rows()
    assert rows(spec=AcPredictorSpec(24, 96, 6, 4)) < rows()


class SlowWorld:
    """Every pass of the predictor takes 20 ms."""

    ac = SimpleNamespace(spec=SPEC)

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: object = None) -> Tensor:
        time.sleep(0.02)
        return actions.sum((1, 2))[:, None, None, None].expand(-1, actions.shape[1], *latents.shape[2:])


def test_search_ends_before_its_deadline_with_the_best_it_has_scored():
    (latent,), (state,), goal = moments()
    controller = Controller(SlowWorld(), CemConfig(samples=1000, max_memory_gib=1e-3, plan_gripper=False))  # type: ignore[arg-type]
    controller.warm_up(latent, state)
    deadline = Deadline(0.2)
    found = controller.plan_latent(latent, state, 0 * goal - 0.1, generator=generator_for(0), deadline=deadline)
    assert 0 <= deadline.left < 0.1
    assert found.cut_short
    assert 0 < found.scored < 1000
    energies = controller.energy(latent, state, 0 * goal - 0.1, found.best[None])
    assert float(energies) <= found.energies[0].best
    assert torch.equal(found.actions, found.best)


def test_search_that_has_time_is_not_changed_by_a_deadline():
    (latent,), (state,), goal = moments()
    controller = Controller(world(), CemConfig(samples=20, iterations=3, elites=4))
    free = controller.plan_latent(latent, state, goal, generator=generator_for(0))
    timed = controller.plan_latent(latent, state, goal, generator=generator_for(0), deadline=Deadline(60))
    assert torch.equal(free.actions, timed.actions)
    assert free.energies == timed.energies
    assert not timed.cut_short
    assert timed.scored == 60


def test_no_time_at_all_is_the_first_mean():
    (latent,), (state,), goal = moments()
    controller = Controller(world(), CemConfig(samples=20, iterations=3, elites=4))
    found = controller.plan_latent(latent, state, goal, generator=generator_for(0), deadline=Deadline(0))
    assert found.scored == 0
    assert torch.equal(found.actions, torch.zeros(1, 7))


def test_pace_knows_the_fixed_part_the_load_and_the_longest_stall_and_lets_them_go_one_by_one():
    pace = Pace()
    assert pace.rows_within(1.0, 64) == 1, "nothing is known yet"
    pace.calibrate(one=0.011, many=0.041, rows=31)
    assert pace.rows_within(0.005, 31) == 0
    assert pace.rows_within(10.0, 31) == 31
    assert pace.seconds(31) == pytest.approx(0.041 + 0.004, abs=1e-3)
    few = pace.rows_within(0.04, 31)
    assert pace.seconds(few) <= 0.04 < pace.seconds(few + 1)
    for _ in range(9):
        pace.add(0.082, 31)
    assert pace.seconds(31) == pytest.approx(0.082 + 0.004, abs=2e-3), "half as fast"
    pace.add(0.082 + 0.03, 31)
    assert pace.seconds(31) == pytest.approx(0.082 + 0.03 + 0.004, abs=2e-3), "and once a stall of 30 ms"
    assert pace.rows_within(0.04, 31) == 0
    pace.add_tail(0.004 + 0.05)
    assert pace.seconds(31) == pytest.approx(0.082 + 0.05 + 0.004, abs=2e-3), "and one of 50 ms after the last prediction"
    pace.ease()
    assert pace.seconds(31) == pytest.approx(0.082 + 0.03 + 0.004, abs=2e-3), "the longest is let go first"
    pace.ease()
    assert pace.seconds(31) == pytest.approx(0.082 + 0.004, abs=2e-3)
    for _ in range(4):
        pace.ease()
        assert pace.rows_within(0.04, 31) < few, "one or two at a time"
    pace.ease()
    assert pace.rows_within(0.04, 31) == few, "what is never tried is forgotten in the end"


def test_search_that_scored_nothing_tries_again_later():
    """A load that was noted once must not stand for ever."""
    (latent,), (state,), goal = moments()
    controller = Controller(world(), CemConfig(samples=20, iterations=3, elites=4))
    controller.warm_up(latent, state)
    controller._rollouts.pace.add(60.0, 1)
    found = [controller.plan_latent(latent, state, goal, generator=generator_for(0), deadline=Deadline(0.1)) for _ in range(3)]
    assert found[0].scored == 0 < found[1].scored


def test_warm_start_begins_at_the_plan_before_moved_on_by_a_step():
    (latent,), (state,), goal = moments()
    config = CemConfig(
        samples=20, iterations=1, elites=4, horizon=3, warm_start=True, mean_smoothing=1.0, gripper_mean_smoothing=1.0
    )
    controller = Controller(world(), config)
    first = controller.plan_latent(latent, state, goal, generator=generator_for(0))
    before = type(first)(**{**first.__dict__, "mean": torch.arange(21.0).reshape(3, 7) / 1000})
    later = controller.plan_latent(latent, state, goal, generator=generator_for(1), before=before)
    expected = before.mean[[1, 2, 2]].clone()
    expected[:, 3:6] = 0  # what is not planned stays where it is
    assert torch.allclose(later.mean, expected)
    cold = Controller(world(), config.model_copy(update={"warm_start": False}))
    assert torch.equal(cold.plan_latent(latent, state, goal, generator=generator_for(1), before=before).mean, torch.zeros(3, 7))
