"""What a search may do beyond the released method, each against what it is for."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.cem import CemResult, CemSettings, cem
from vjepa2cli.planning.sampling import colouring, uninformative_axes

BOX = 0.75
PLAIN = CemSettings(samples=200, iterations=10, elites=10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def search(cost, config: CemSettings, *, horizon: int = 1, axes: int = 2, seed: int = 0, std: float = 0.5, **more) -> CemResult:
    mean = torch.zeros(horizon, axes)
    return cem(
        cost, mean=mean, std=torch.full_like(mean, std), bounds=(-BOX, BOX), config=config, generator=generator(seed), **more
    )


def distance(*goal: float):
    """The cost is the distance of the first numbers of a sample's summed actions to the goal; the others do not matter."""
    target = torch.tensor(goal)

    def cost(actions: Tensor) -> Tensor:
        return (actions.sum(1)[:, : len(goal)] - target).norm(dim=-1)

    return cost


def released(
    cost, noise: list[Tensor], *, maxnorm: float, elites: int, momentum: float, close: int | None
) -> tuple[Tensor, Tensor]:
    """The released method as it is described: loops, one step at a time, a gripper that starts at 1 and is cut at .75."""
    horizon = noise[0].shape[1]
    mean, std = torch.zeros(horizon, 4), torch.tensor([maxnorm] * 3 + [1.0]).repeat(horizon, 1)
    for draw in noise:
        steps = []
        for h in range(horizon):
            action = draw[:, h] * std[h] + mean[h]
            action[:, :3] = action[:, :3].clip(-maxnorm, maxnorm)
            action[:, 3] = action[:, 3].clip(-0.75, 0.75)
            if close is not None and h >= close:
                action[:, 3] = 1.0
            steps.append(action)
        samples = torch.stack(steps, 1)
        best = samples[cost(samples).argsort()[:elites]]
        mean = (1 - momentum) * best.mean(0) + momentum * mean
        std = (1 - momentum) * best.std(0) + momentum * std
    actions = mean.clone()
    actions[:, 3][actions[:, 3].abs() < 0.25] = 0
    return actions, std


@pytest.mark.parametrize("close", [None, 1])
def test_released_method_is_the_default(close: int | None):
    def cost(actions: Tensor) -> Tensor:
        return (actions[..., :3].sum(1) - torch.tensor([0.03, -0.02, 0.2])).norm(dim=-1) + 0.1 * (actions[:, 0, 3] - 0.4).abs()

    source = generator()
    noise = [torch.randn(400, 2, 4, generator=source) for _ in range(10)]
    expected, expected_std = released(cost, noise, maxnorm=0.05, elites=10, momentum=0.15, close=close)
    mean, std, limit = (
        torch.zeros(2, 4),
        torch.tensor([0.05] * 3 + [1.0]).repeat(2, 1),
        torch.tensor([0.05] * 3 + [0.75]).repeat(2, 1),
    )
    low = -limit
    if close is not None:
        mean[close:, 3] = low[close:, 3] = limit[close:, 3] = 1.0
        std[close:, 3] = 0.0
    found = cem(
        cost, mean=mean, std=std, bounds=(low, limit), generator=generator(), config=CemSettings(dead_zone=(0, 0, 0, 0.25))
    )
    assert torch.allclose(found.actions, expected, rtol=0, atol=1e-6)
    free = std > 0
    assert torch.allclose(found.std[free], expected_std[free], rtol=1e-4, atol=1e-8)


def test_axis_that_costs_nothing_is_pinned_and_others_are_not():
    """The released method draws a command for it out of nothing; see the next test."""
    for seed in range(20):
        found = search(distance(0.3, -0.2), CemSettings(iterations=20, uninformative_level=0.001), axes=3, horizon=2, seed=seed)
        assert found.actions[:, 2].tolist() == [0.0, 0.0]
        assert torch.allclose(found.actions.sum(0)[:2], torch.tensor([0.3, -0.2]), atol=1e-3)


def test_axis_that_costs_nothing_gets_a_command_from_the_released_method():
    """Beyond the dead zone of .25 in some runs: its spread falls by the smoothing alone, wherever the elites happened to be."""
    commands = [abs(float(search(distance(0.3), CemSettings(), seed=seed).actions[0, 1])) for seed in range(20)]
    assert max(commands) > 0.25


def test_dependence_is_told_from_chance_at_the_named_rate():
    """Costs that are noise: an axis is called informative about as often as the level says (5 of 100 expected)."""
    wrong = 0
    for seed in range(100):
        samples = torch.randn(200, 2, 1, generator=generator(seed))
        costs = torch.randn(200, generator=generator(1000 + seed))
        wrong += int(not bool(uninformative_axes(samples, costs, level=0.05)[0]))
    assert 0 < wrong < 14  # 5 +- 4 standard deviations of 2.2


def test_a_bent_dependence_counts_as_one_and_too_few_samples_are_refused():
    samples = torch.randn(100, 1, 2, generator=generator())
    costs = samples[:, 0, 0].square() + torch.randn(100, generator=generator(1))
    assert uninformative_axes(samples, costs, level=0.01).tolist() == [False, True]
    with pytest.raises(PlanningError, match="raise samples to 15"):
        uninformative_axes(samples[:14], costs[:14], level=0.01)


def test_mean_among_the_samples_is_never_worse_than_the_mean_before():
    """Without smoothing and with few samples the best energy of the plain method goes up and down."""
    small = CemSettings(samples=6, iterations=12, elites=3, mean_smoothing=0.0)
    seen: list[Tensor] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return distance(0.3, 0.1)(actions)

    search(cost, CemSettings(samples=6, iterations=12, elites=3, mean_among_samples=True))
    assert torch.equal(seen[0][0], torch.zeros(1, 2))
    for before, after in pairwise(seen):
        best = before[distance(0.3, 0.1)(before).argsort()[:3]]
        assert torch.allclose(after[0], 0.85 * best.mean(0) + 0.15 * before[0], atol=1e-6)
    assert any(later.best > earlier.best for earlier, later in pairwise(search(distance(0.3, 0.1), small).energies))


def test_floor_keeps_a_search_open_that_would_have_closed():
    """The spread never falls below the floor, so a valley that moves away is followed."""
    plain, floored = (search(distance(0.3, 0.1), CemSettings(std_floor=floor)) for floor in (0.0, 0.1))
    assert bool((plain.std < 0.005).all())
    assert torch.allclose(floored.std, torch.full((1, 2), 0.05), atol=0.02)
    assert bool((floored.std >= 0.05 - 1e-6).all())


def test_best_sample_is_the_best_of_all_and_can_be_returned():
    seen: list[Tensor] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return distance(0.3, 0.1)(actions)

    found = search(cost, CemSettings(samples=20, iterations=4, elites=5, returns="best"))
    everything = torch.cat(seen)
    assert torch.equal(found.actions, everything[distance(0.3, 0.1)(everything).argmin()])
    assert torch.equal(found.actions, found.best)
    assert found.scored == 80
    assert float(distance(0.3, 0.1)(found.actions[None])) == pytest.approx(min(energies.best for energies in found.energies))


@pytest.mark.parametrize("horizon", [2, 5, 12])
@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_coloured_noise_has_variance_one_and_the_longer_the_lag_the_less_is_shared(horizon: int, exponent: float):
    factor = colouring(horizon, exponent)
    covariance = factor @ factor.T
    assert torch.allclose(covariance.diagonal(), torch.ones(horizon, dtype=factor.dtype))
    shared = covariance[0]
    assert bool((shared[1:] < shared[:-1]).all())
    assert shared[1] > 0.05
    assert torch.allclose(colouring(horizon, 0.0), torch.eye(horizon, dtype=factor.dtype), atol=1e-9)


def test_coloured_noise_reaches_far_sooner():
    """Steps that go one way add up: a goal that lies far is nearer after the first iteration."""
    first = {
        colour: sum(
            search(distance(2.0, 2.0), CemSettings(noise_colour=colour), horizon=4, seed=s).energies[0].best for s in range(10)
        )
        for colour in (0.0, 2.0)
    }
    assert first[2.0] < 0.8 * first[0.0]


def test_search_ends_when_the_elites_agree():
    found = search(distance(0.3, 0.1), CemSettings(iterations=50, agreement=0.01))
    assert 2 < len(found.energies) < 10
    assert torch.allclose(found.actions, torch.tensor([[0.3, 0.1]]), atol=0.02)
    assert not found.cut_short


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_mppi_reaches_the_goal_too(temperature: float):
    config = CemSettings(solver="mppi", temperature=temperature, samples=400, iterations=30)
    assert torch.allclose(search(distance(0.3, 0.1), config).actions, torch.tensor([[0.3, 0.1]]), atol=5e-3)


def test_one_iteration_of_mppi_is_the_weighted_mean():
    config = CemSettings(solver="mppi", samples=50, iterations=1, temperature=0.3, mean_smoothing=0.0, std_smoothing=1.0)
    found = search(distance(0.3, 0.1), config)
    samples = (0.5 * torch.randn(50, 1, 2, generator=generator())).clamp(-BOX, BOX)
    costs = distance(0.3, 0.1)(samples)
    weights = torch.exp(-(costs - costs.min()) / (0.3 * costs.std()))
    expected = (weights[:, None, None] * samples).sum(0) / weights.sum()
    assert torch.allclose(found.actions, expected, atol=1e-6)
    assert torch.equal(found.std, torch.full((1, 2), 0.5)), "smoothing 1 keeps the spread, as plain MPPI does"


def test_cost_is_unchanged_by_a_scale_and_an_offset_in_every_solver():
    for solver in ("cem", "mppi"):
        config = CemSettings(solver=solver, samples=64, iterations=5, elites=8)  # type: ignore[arg-type]
        plain = search(distance(0.3, 0.1), config)
        other = search(lambda actions: 7 * distance(0.3, 0.1)(actions) + 3, config)
        assert torch.allclose(plain.actions, other.actions, atol=1e-5)


def test_forbidden_samples_are_never_elites():
    def cost(actions: Tensor) -> Tensor:
        return torch.where(actions[:, 0, 0] > 0.2, math.inf, distance(0.3, 0.1)(actions))

    for solver in ("cem", "mppi"):
        found = search(cost, CemSettings(solver=solver, samples=400))  # type: ignore[arg-type]
        assert found.best[0, 0] <= 0.2
        assert torch.allclose(found.best, torch.tensor([[0.2, 0.1]]), atol=0.02)
    with pytest.raises(PlanningError, match="finite for 0 of 200 samples"):
        search(lambda actions: torch.full((len(actions),), math.inf), PLAIN)


@pytest.mark.parametrize("mean_is_better", [False, True])
def test_search_that_is_stopped_returns_the_best_that_it_has_scored(mean_is_better: bool):
    """Three iterations, the last one not to its end, then the mean alone."""
    sizes: list[int] = []

    def cost(actions: Tensor) -> Tensor:
        sizes.append(len(actions))
        costs = distance(0.3, 0.1)(actions)
        if len(sizes) == 3:
            costs[37:] = math.inf
        if len(sizes) == 4:
            costs += -10 if mean_is_better else 10
        return costs

    found = search(cost, PLAIN, stop=lambda: False)
    assert sizes == [200, 200, 200, 1]
    assert found.cut_short
    assert found.scored == 437
    assert torch.equal(found.actions, found.best)
    assert torch.equal(found.actions, found.mean) == mean_is_better
    if not mean_is_better:
        best = min(energies.best for energies in found.energies)
        assert float(distance(0.3, 0.1)(found.actions[None])) == pytest.approx(best)
    nothing = search(cost, PLAIN, stop=lambda: True)
    assert nothing.cut_short
    assert nothing.energies == ()
    assert torch.equal(nothing.actions, torch.zeros(1, 2))
    assert len(sizes) == 4


@pytest.mark.parametrize("change", [{"solver": "mppi"}, {"noise_colour": 1.0}, {"std_floor": 0.1}, {"mean_among_samples": True}])
def test_samples_stay_in_the_box_whatever_is_set(change: dict):
    def cost(actions: Tensor) -> Tensor:
        assert bool((actions.abs() <= BOX).all())
        return -actions.sum((1, 2))

    found = search(cost, CemSettings(samples=50, iterations=6, elites=5, **change), horizon=3)
    assert bool((found.actions.abs() <= BOX).all())
    assert found.actions.mean() > 0.4
