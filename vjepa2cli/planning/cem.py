"""The cross-entropy method: plan by sampling, keeping the best, and narrowing. It knows numbers, bounds and a generator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError

Cost = Callable[[Tensor], Tensor]
"""Actions [S, H, A] -> one cost a sample [S]; lower is better."""


@dataclass(frozen=True)
class CemSettings:
    """The numbers of the method; a smoothing or dead zone is one number, or one for each of the A action dimensions.

    `smoothing` is the weight of the old value in the update. A final action within its `dead_zone` becomes 0.
    The defaults are those of the released world model. Source: notebooks/utils/world_model_wrapper.py of facebookresearch/vjepa2.
    """

    samples: int = 400
    iterations: int = 10
    elites: int = 10
    mean_smoothing: float | tuple[float, ...] = 0.15
    std_smoothing: float | tuple[float, ...] = 0.15
    dead_zone: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise PlanningError(f"iterations: {self.iterations} is not at least 1")
        if not 2 <= self.elites <= self.samples:
            raise PlanningError(
                f"elites: {self.elites} is not between 2 (one has no standard deviation) and samples, {self.samples}"
            )


class Energies(NamedTuple):
    """The cost in one iteration: of the best sample, and the mean over the elites and over all samples."""

    best: float
    elites: float
    samples: float


@dataclass(frozen=True)
class CemResult:
    """`actions` [H, A] to execute; `mean` and `std` [H, A] of the last distribution; `energies` of every iteration."""

    actions: Tensor
    mean: Tensor
    std: Tensor
    energies: tuple[Energies, ...]


_RELEASED = CemSettings()


def cem(
    cost: Cost,
    *,
    mean: Tensor,
    std: Tensor,
    bounds: tuple[Tensor | float, Tensor | float],
    generator: torch.Generator,
    config: CemSettings = _RELEASED,
) -> CemResult:
    """Minimise `cost` over action sequences [H, A] from a Gaussian for every step; returns the final mean, not the best sample.

    `mean` and `std` [H, A] are the first distribution, `bounds` its box as (low, high), each a number, [A] or [H, A]. A
    dimension with standard deviation 0 stays where its mean is. The same generator state gives the same result on every device.
    Raises PlanningError for shapes that do not fit and for costs that are not a number.
    Source: `cem` of notebooks/utils/mpc_utils.py of facebookresearch/vjepa2; arXiv:2506.09985, section 4.
    """
    low, high = (torch.as_tensor(bound, dtype=mean.dtype, device=mean.device).expand_as(mean) for bound in bounds)
    if mean.ndim != 2 or mean.shape != std.shape or not bool((low <= high).all()):
        raise PlanningError(
            f"mean {list(mean.shape)} and std {list(std.shape)} must both be [H, A], and low bounds <= high bounds"
        )
    keep_mean, keep_std, dead_zone = (
        torch.as_tensor(value, dtype=mean.dtype, device=mean.device)
        for value in (config.mean_smoothing, config.std_smoothing, config.dead_zone)
    )
    pinned = std == 0
    mean = mean.clamp(low, high)
    energies = []
    for _ in range(config.iterations):
        noise = torch.randn(config.samples, *mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
        samples = (mean + std * noise.to(mean.device)).clamp(low, high)  # [S, H, A]
        costs = _checked(cost(samples), config.samples)
        best = costs.topk(config.elites, largest=False)
        elites = samples[best.indices]
        new_mean = (1 - keep_mean) * elites.mean(0) + keep_mean * mean
        new_std = (1 - keep_std) * elites.std(0) + keep_std * std
        mean = torch.where(pinned, mean, new_mean.clamp(low, high))  # inside the box but for rounding
        std = torch.where(pinned, std, new_std)
        energies.append(torch.stack([best.values[0], best.values.mean(), costs.mean()]))
    actions = torch.where(mean.abs() < dead_zone, torch.zeros_like(mean), mean)
    return CemResult(actions, mean, std, tuple(Energies(*row) for row in torch.stack(energies).tolist()))


def _checked(costs: Tensor, samples: int) -> Tensor:
    if costs.shape != (samples,):
        raise PlanningError(f"cost: returned shape {list(costs.shape)}; it must return one number a sample, [{samples}]")
    if bool(costs.isnan().any()):
        raise PlanningError("cost: returned NaN; check the model's weights and the state for non-finite values")
    return costs
