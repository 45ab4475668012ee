"""The cross-entropy method against a world whose answer is known."""

import pytest
import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.cem import CemSettings, cem

SMOOTH = CemSettings(samples=800, iterations=10, elites=10)


def toward(goal: tuple[float, ...]):
    """A world in which actions add up: the cost is the mean distance per axis of their sum to the goal."""
    target = torch.tensor(goal)

    def cost(actions: Tensor) -> Tensor:
        return (actions.sum(1) - target).abs().mean(-1)

    return cost


def solve(cost, *, horizon: int = 1, config: CemSettings = SMOOTH, seed: int = 0, limit: float = 0.075, axes: int = 3):
    return cem(
        cost,
        mean=torch.zeros(horizon, axes),
        std=torch.full((horizon, axes), limit),
        bounds=(-limit, limit),
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )


def test_goal_inside_the_box_is_reached():
    """The reference finds (.03, -.02, .05) to 1e-6 with 800 samples, 10 elites, 10 iterations and smoothing .15."""
    result = solve(toward((0.03, -0.02, 0.05)))
    assert torch.allclose(result.actions, torch.tensor([[0.03, -0.02, 0.05]]), rtol=0, atol=5e-6)
    assert result.energies[-1].best < 1e-5 < result.energies[0].best


def test_goal_outside_the_box_saturates_at_the_bound():
    result = solve(toward((0.2, 0.0, 0.0)))
    assert torch.allclose(result.actions, torch.tensor([[0.075, 0.0, 0.0]]), rtol=0, atol=5e-6)


def test_actions_of_several_steps_add_up_to_a_far_goal():
    result = solve(toward((0.12, -0.1, 0.0)), horizon=2, config=CemSettings(samples=800, iterations=20, elites=10))
    assert torch.allclose(result.actions.sum(0), torch.tensor([0.12, -0.1, 0.0]), rtol=0, atol=1e-3)


def test_samples_never_leave_the_bounds():
    low, high = torch.tensor([-0.05, -0.1]), torch.tensor([[0.02, 0.3], [0.05, 0.1]])

    def cost(actions: Tensor) -> Tensor:
        assert bool((actions >= low).all())
        assert bool((actions <= high).all())
        return -actions.sum((1, 2))

    result = cem(
        cost,
        mean=torch.zeros(2, 2),
        std=torch.ones(2, 2),
        bounds=(low, high),
        config=CemSettings(samples=50, iterations=5, elites=5),
        generator=torch.Generator().manual_seed(1),
    )
    assert torch.allclose(result.actions, high, atol=1e-3)
    assert bool((result.actions <= high).all())


def test_the_generator_alone_decides():
    config = CemSettings(samples=20, iterations=2, elites=4)
    first, again, other = (solve(toward((0.03, 0.0, 0.0)), config=config, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.actions, again.actions)
    assert first.energies == again.energies
    assert not torch.equal(first.actions, other.actions)


def test_one_iteration_is_the_smoothed_elite_statistics():
    config = CemSettings(samples=30, iterations=1, elites=5, mean_smoothing=(0.15, 0.4), std_smoothing=(0.75, 0.2))
    seen: list[Tensor] = []

    def cost(actions: Tensor) -> Tensor:
        seen.append(actions)
        return (actions - 0.3).abs().sum((1, 2))

    mean, std = torch.full((1, 2), 0.1), torch.full((1, 2), 0.5)
    result = cem(cost, mean=mean, std=std, bounds=(-1.0, 1.0), config=config, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(30, 1, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(seen[0], (mean + std * noise).clamp(-1, 1))
    elites = seen[0][cost(seen[0]).argsort()[:5]]
    keep_mean, keep_std = torch.tensor([0.15, 0.4]), torch.tensor([0.75, 0.2])
    assert torch.allclose(result.mean, (1 - keep_mean) * elites.mean(0) + keep_mean * mean)
    assert torch.allclose(result.std, (1 - keep_std) * elites.std(0, correction=1) + keep_std * std)
    assert result.energies[0].best == pytest.approx(float(cost(seen[0]).min()))
    assert result.energies[0].elites == pytest.approx(float(cost(elites).mean()))


def test_dimension_without_spread_stays_where_it_is():
    mean, std = torch.tensor([[0.0, 0.3]]), torch.tensor([[0.5, 0.0]])
    result = cem(
        lambda actions: (actions - 0.1).abs().sum((1, 2)),
        mean=mean,
        std=std,
        bounds=(-1.0, 1.0),
        config=CemSettings(samples=50, iterations=20, elites=5),
        generator=torch.Generator().manual_seed(0),
    )
    assert result.actions[0, 1] == mean[0, 1]
    assert result.actions[0, 0] == pytest.approx(0.1, abs=1e-3)


def test_what_snaps_goes_to_its_bound_unless_it_is_in_the_dead_zone_or_pinned():
    config = CemSettings(samples=400, iterations=10, elites=10, dead_zone=(0.0, 0.25, 0.25, 0.0), snaps=(False, True, True, True))
    mean = torch.tensor([[0.0, 0.0, 0.0, 0.3]])
    std = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    result = cem(
        toward((0.3, -0.4, 0.1, 0.0)),
        mean=mean,
        std=std,
        bounds=(-0.75, 0.75),
        config=config,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.allclose(result.actions, torch.tensor([[0.3, -0.75, 0.0, 0.3]]), rtol=0, atol=1e-3)


def test_dead_zone_acts_at_the_end_alone():
    config = CemSettings(samples=400, iterations=10, elites=10, dead_zone=(0.0, 0.25))
    for goal, gripper in ((0.2, 0.0), (0.4, 0.4)):
        result = solve(toward((0.1, goal)), config=config, limit=0.75, axes=2)
        assert torch.allclose(result.actions, torch.tensor([[0.1, gripper]]), rtol=0, atol=1e-4)
        assert result.mean[0, 1] == pytest.approx(goal, abs=1e-4)


def test_costs_that_do_not_fit_are_refused():
    with pytest.raises(PlanningError, match="must return one number a sample"):
        solve(lambda actions: actions)
    with pytest.raises(PlanningError, match="NaN"):
        solve(lambda actions: actions.sum((1, 2)) * float("nan"))
    with pytest.raises(PlanningError, match="elites"):
        CemSettings(samples=4, elites=5)
