"""What the samples of a search are drawn with, and what they say about the axes."""

import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError

_SPARE = 10
"""Samples beyond the number of coefficients, for their errors to be known."""


def colouring(horizon: int, exponent: float) -> Tensor:
    """A matrix [H, H] that turns white noise into noise of the spectrum 1 / frequency^exponent, every step of variance 1.

    It is a window of noise that repeats after twice the horizon, so the first step is not tied to the last.
    Source: Timmer & Koenig 1995 for the spectrum; Pinneri et al. 2020 (arXiv:2008.06389) for its use in planning.
    """
    period = 2 * horizon
    frequencies = torch.arange(1, period // 2 + 1, dtype=torch.float64) / period
    power = frequencies**-exponent
    power[:-1] *= 2  # All but the highest stand for two, one of either sign.
    power = torch.cat((power[:1] / 2, power))  # The mean has the power of the lowest.
    frequencies = torch.cat((frequencies.new_zeros(1), frequencies))
    lags = torch.arange(horizon)
    correlation = (power * torch.cos(2 * torch.pi * frequencies * lags[:, None])).sum(1) / power.sum()
    factor: Tensor = torch.linalg.cholesky(correlation[(lags[:, None] - lags).abs()])
    return factor


def uninformative_axes(samples: Tensor, costs: Tensor, *, level: float) -> Tensor:
    """Which axes [A] the costs [S] of samples [S, H, A] do not depend on, as far as can be told at a level of significance.

    Costs are fitted by a straight and a bent term in every number of the actions; an axis is informative if its terms, over all
    steps, are further from 0 than chance puts them in a share `level` of cases (Wald's test).
    Raises PlanningError where there are too few samples to tell.
    """
    count, horizon, axes = samples.shape
    x = samples.double().cpu().flatten(1)
    varying = x.std(0) > 0
    x = (x[:, varying] - x[:, varying].mean(0)) / x[:, varying].std(0)
    bent = x.square()
    terms = torch.cat((torch.ones(count, 1, dtype=x.dtype), x, bent - bent.mean(0)), dim=1)
    if count < terms.shape[1] + _SPARE:
        raise PlanningError(
            f"uninformative_level: {count} samples cannot tell which of {horizon} x {axes} numbers matter; "
            f"raise samples to {terms.shape[1] + _SPARE}, or pin axes by hand"
        )
    y = costs.double().cpu().unsqueeze(1)
    inverse = torch.linalg.pinv(terms.T @ terms, hermitian=True)
    coefficients = inverse @ (terms.T @ y)
    variance = (y - terms @ coefficients).square().sum() / (count - terms.shape[1])
    owner = torch.arange(axes).repeat(horizon)[varying].repeat(2)
    unknown = torch.zeros(axes, dtype=torch.bool)
    for axis in sorted(set(owner.tolist())):
        own = 1 + torch.nonzero(owner == axis).squeeze(1)
        b = coefficients[own]
        covariance = variance.clamp_min(torch.finfo(x.dtype).tiny) * inverse[own][:, own]
        statistic = (b.T @ torch.linalg.pinv(covariance, hermitian=True) @ b).squeeze()
        chance = torch.special.gammaincc(torch.tensor(len(own) / 2, dtype=x.dtype), statistic / 2)
        unknown[axis] = bool(chance > level)
    return unknown.to(samples.device)
