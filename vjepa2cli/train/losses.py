"""Losses as sums and counts, divided once over all processes: two with half a batch each equal one with all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Term:
    """One mean in a loss; terms of one name are logged as one number."""

    name: str
    weight: float


@dataclass(frozen=True)
class Batch:
    """What a module takes, and what each of its rows was cut from, such as `video 3:19:2`.

    `terms` are the module's with the weights of this step, where those change; `skipped` says what could not be read.
    """

    inputs: Any
    ids: tuple[str, ...]
    terms: tuple[Term, ...] = ()
    skipped: tuple[str, ...] = ()


class LossModule(nn.Module):
    """A module whose loss is the weighted sum of its terms' means; calling it on inputs gives the terms' sums [terms].

    A term's count must depend on the inputs alone, since it divides before the backward pass.
    """

    terms: tuple[Term, ...]

    def counts(self, inputs: Any) -> Tensor:
        """What each term's sum is over, [terms]; zero where a batch has nothing for it."""
        raise NotImplementedError

    @torch.no_grad()
    def mean_loss(self, inputs: Any) -> float:
        """The loss of these inputs alone."""
        return float(weighted_loss(self(inputs), self.counts(inputs), self.terms))


def weighted_loss(sums: Tensor, counts: Tensor, terms: Sequence[Term]) -> Tensor:
    """The loss from sums and counts [terms]; a term that counts nothing is zero."""
    weights = torch.tensor([term.weight for term in terms], dtype=torch.float64, device=sums.device)
    shares = torch.where(counts > 0, weights / counts.double(), 0.0)
    return (sums * shares.to(sums)).sum()


def level(sums: Tensor, counts: Tensor, terms: Sequence[Term]) -> float:
    """The weighted mean of the terms that count something, so that a step without one of them compares with those with it."""
    present = sum(term.weight for term, count in zip(terms, counts.tolist(), strict=True) if count > 0)
    return float(weighted_loss(sums, counts, terms)) / present if present else 0.0


def named_means(sums: Tensor, counts: Tensor, terms: Sequence[Term]) -> dict[str, float]:
    """The loss, and the mean of each name's terms, from sums and counts [terms] over all processes."""
    means = torch.where(counts > 0, sums.double() / counts, 0.0).tolist()
    values = {"loss": sum(term.weight * mean for term, mean in zip(terms, means, strict=True))}
    for name in dict.fromkeys(term.name for term in terms):
        chosen = [(term.weight, mean) for term, mean in zip(terms, means, strict=True) if term.name == name]
        total = sum(weight for weight, _ in chosen)
        if total > 0:  # a term that weighs nothing at this step has nothing to say
            values[name] = sum(weight * mean for weight, mean in chosen) / total
    return values
