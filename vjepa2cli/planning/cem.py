"""Plan by sampling: the cross-entropy method, and MPPI behind the same call. They know numbers, bounds and a generator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.sampling import colouring, uninformative_axes

Cost = Callable[[Tensor], Tensor]
"""Actions [S, H, A] -> one cost a sample [S]; lower is better, infinite where a sample is forbidden or was not scored."""


@dataclass(frozen=True)
class CemSettings:
    """The numbers of the method; a smoothing, dead zone or floor is one number, or one for each of the A action dimensions.

    `smoothing` is the weight of the old value in the update. A final action within its `dead_zone` becomes 0, one outside it the
    end of its bounds where it `snaps`.
    The defaults are those of the released world model. Source: notebooks/utils/world_model_wrapper.py of facebookresearch/vjepa2.

    What the released method does not do is off: see `CemConfig`, whose keys have the same names.
    """

    samples: int = 400
    iterations: int = 10
    elites: int = 10
    mean_smoothing: float | tuple[float, ...] = 0.15
    std_smoothing: float | tuple[float, ...] = 0.15
    dead_zone: float | tuple[float, ...] = 0.0
    snaps: bool | tuple[bool, ...] = False
    solver: Literal["cem", "mppi"] = "cem"
    temperature: float = 0.1
    mean_among_samples: bool = False
    std_floor: float | tuple[float, ...] = 0.0
    uninformative_level: float | None = None
    returns: Literal["mean", "best"] = "mean"
    noise_colour: float = 0.0
    agreement: float = 0.0

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
    """`actions` [H, A] to execute; `mean` and `std` [H, A] of the last distribution; `energies` of every iteration.

    `best` [H, A] is the best of all that were scored, `scored` the number of samples, `cut_short` says that `stop` ended it.
    """

    actions: Tensor
    mean: Tensor
    std: Tensor
    energies: tuple[Energies, ...]
    best: Tensor
    scored: int
    cut_short: bool


_RELEASED = CemSettings()


def cem(
    cost: Cost,
    *,
    mean: Tensor,
    std: Tensor,
    bounds: tuple[Tensor | float, Tensor | float],
    generator: torch.Generator,
    config: CemSettings = _RELEASED,
    stop: Callable[[], bool] | None = None,
) -> CemResult:
    """Minimise `cost` over action sequences [H, A] from a Gaussian for every step; returns the final mean, not the best sample.

    `mean` and `std` [H, A] are the first distribution, `bounds` its box as (low, high), each a number, [A] or [H, A]. A
    dimension with standard deviation 0 stays where its mean is. The same generator state gives the same result on every device.
    `stop` is asked before every iteration; once it is true, or an iteration was not scored to its end, the mean is scored as
    well (a cost of one sample), and the better of it and the best sample is returned.
    Raises PlanningError for shapes that do not fit and for costs that are not a number or all infinite.
    Source: `cem` of notebooks/utils/mpc_utils.py of facebookresearch/vjepa2; arXiv:2506.09985, section 4; for MPPI, Williams et
    al. 2017 (arXiv:1707.02342), with the standard deviation updated as well.
    """
    search = _Search(mean, std, bounds, config)
    for _ in range(config.iterations):
        if stop is not None and stop():
            search.cut_short = True
            break
        samples = search.draw(generator)
        costs = _checked(cost(samples), config.samples)
        search.update(samples, costs, may_be_partial=stop is not None)
        if search.cut_short or search.agreed:
            break
    if search.cut_short and search.scored:
        search.settle(_checked(cost(search.mean.unsqueeze(0)), 1))
    return search.result()


class _Search:
    """The distribution, and what has been found with it."""

    def __init__(self, mean: Tensor, std: Tensor, bounds: tuple[Tensor | float, Tensor | float], config: CemSettings) -> None:
        low, high = (torch.as_tensor(bound, dtype=mean.dtype, device=mean.device).expand_as(mean) for bound in bounds)
        if mean.ndim != 2 or mean.shape != std.shape or not bool((low <= high).all()):
            raise PlanningError(
                f"mean {list(mean.shape)} and std {list(std.shape)} must both be [H, A], and low bounds <= high bounds"
            )
        self._config, self._low, self._high = config, low, high
        self._keep_mean, self._keep_std, self._dead_zone, floor = (
            torch.as_tensor(value, dtype=mean.dtype, device=mean.device)
            for value in (config.mean_smoothing, config.std_smoothing, config.dead_zone, config.std_floor)
        )
        self._pinned, self._first_std, self._floor = std == 0, std, floor * std
        self._first_mean = self.mean = mean.clamp(low, high)
        self.std = std
        self._colouring = colouring(len(mean), config.noise_colour).to(mean) if config.noise_colour and len(mean) > 1 else None
        self._best, self._best_cost = self.mean, torch.full((), torch.inf, device=mean.device)
        self._energies: list[Energies] = []
        self.scored = 0
        self.cut_short = self.agreed = False

    def draw(self, generator: torch.Generator) -> Tensor:
        """Samples [S, H, A] of the distribution, inside the box."""
        size = self._config.samples, *self.mean.shape
        noise = torch.randn(size, generator=generator, device=generator.device, dtype=self.mean.dtype).to(self.mean.device)
        if self._colouring is not None:
            noise = self._colouring @ noise
        samples = (self.mean + self.std * noise).clamp(self._low, self._high)
        if self._config.mean_among_samples:
            samples[0] = self.mean
        return samples

    def update(self, samples: Tensor, costs: Tensor, *, may_be_partial: bool) -> None:
        """Move the distribution to where samples [S, H, A] cost little, and keep the best."""
        config = self._config
        finite = costs.isfinite()
        usable = int(finite.sum())
        self.cut_short = may_be_partial and usable < config.samples
        if usable < 2 and not self.cut_short:
            raise PlanningError(
                f"cost: is finite for {usable} of {config.samples} samples and two are needed to go on; forbid less, or draw more"
            )
        if not usable:
            return
        self.scored += usable
        best = costs.topk(min(config.elites, usable), largest=False)
        elites = samples[best.indices]
        better = best.values[0] < self._best_cost
        self._best, self._best_cost = torch.where(better, elites[0], self._best), torch.minimum(best.values[0], self._best_cost)
        self._energies.append(Energies(*torch.stack([best.values[0], best.values.mean(), costs[finite].mean()]).tolist()))
        if usable < config.elites:
            return
        if len(self._energies) == 1 and config.uninformative_level is not None:
            self._pin(uninformative_axes(samples[finite], costs[finite], level=config.uninformative_level))
        centre, spread = _soft(samples[finite], costs[finite], config.temperature) if config.solver == "mppi" else _hard(elites)
        mean = (1 - self._keep_mean) * centre + self._keep_mean * self.mean
        std = torch.maximum((1 - self._keep_std) * spread + self._keep_std * self.std, self._floor)
        # Inside the box but for rounding.
        self.mean = torch.where(self._pinned, self.mean, mean.clamp(self._low, self._high))
        self.std = torch.where(self._pinned, self.std, std)
        if config.agreement:
            apart = torch.where(self._pinned, 0, elites.std(0) / self._first_std)
            self.agreed = bool((apart < config.agreement).all())

    def settle(self, cost: Tensor) -> None:
        """Take the mean for the best, if its cost [1] is less: after few iterations it usually is."""
        self._best = torch.where(cost[0] < self._best_cost, self.mean, self._best)

    def _pin(self, axes: Tensor) -> None:
        """Hold axes [A] at their first mean from now on."""
        self._pinned = self._pinned | axes
        self.std = torch.where(self._pinned, torch.zeros_like(self.std), self.std)

    def result(self) -> CemResult:
        best = torch.where(self._pinned, self._first_mean, self._best)
        actions = best if self.cut_short or self._config.returns == "best" else self.mean
        within = actions.abs() < self._dead_zone
        snapped = torch.where(actions > 0, self._high, self._low)
        actions = torch.where(torch.as_tensor(self._config.snaps, device=actions.device) & ~self._pinned, snapped, actions)
        return CemResult(
            actions=torch.where(within, torch.zeros_like(actions), actions),
            mean=self.mean,
            std=self.std,
            energies=tuple(self._energies),
            best=best,
            scored=self.scored,
            cut_short=self.cut_short,
        )


def _hard(elites: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [H, A] of the elites [E, H, A]."""
    return elites.mean(0), elites.std(0)


def _soft(samples: Tensor, costs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [H, A] of all samples [S, H, A], weighted by exp(-cost / (temperature times their spread))."""
    scale = temperature * costs.std().clamp_min(torch.finfo(costs.dtype).tiny)
    weights = (-(costs - costs.min()) / scale).softmax(0)[:, None, None].to(samples)
    mean = (weights * samples).sum(0)
    return mean, (weights * (samples - mean).square()).sum(0).sqrt()


def _checked(costs: Tensor, samples: int) -> Tensor:
    if costs.shape != (samples,):
        raise PlanningError(f"cost: returned shape {list(costs.shape)}; it must return one number a sample, [{samples}]")
    if bool(costs.isnan().any()):
        raise PlanningError("cost: returned NaN; check the model's weights and the state for non-finite values")
    return costs
