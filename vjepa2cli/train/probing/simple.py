"""Two classifiers that train no pooling, on the mean token of every clip: a linear one, and the nearest neighbours."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.artifacts.classification import counted

_DECAYS = (1e-4, 1e-2, 1.0)
_ITERATIONS = 200
_TEMPERATURE = 0.07
_CHUNK = 1024


def linear_probe(means: Sequence[Tensor], labels: Sequence[Tensor], *, num_classes: int) -> dict[str, Any]:
    """Logistic regression on standardised means [M, D] of training, selection and validation; selection chooses its decay."""
    centre, scale = means[0].mean(dim=0), means[0].std(dim=0).clamp_min(1e-6)
    train, selection, val = ((own - centre) / scale for own in means)
    fitted = [_fit(train, labels[0], decay, num_classes) for decay in _DECAYS]
    scores = [float((F.linear(selection, *one).argmax(-1) == labels[1]).float().mean()) for one in fitted]
    chosen = max(range(len(_DECAYS)), key=lambda index: scores[index])
    right = F.linear(val, *fitted[chosen]).argmax(-1) == labels[2]
    return counted(right.cpu().numpy()) | {"decay": _DECAYS[chosen], "selection_accuracy": scores[chosen]}


def _fit(inputs: Tensor, labels: Tensor, decay: float, num_classes: int) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(num_classes, inputs.shape[1], device=inputs.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=inputs.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(inputs, weight, bias), labels) + 0.5 * decay * weight.square().sum() / inputs.shape[1]
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def nearest_neighbours(
    means: Sequence[Tensor], labels: Sequence[Tensor], *, num_classes: int, counts: Sequence[int]
) -> dict[str, Any]:
    """The k nearest training clips by the cosine of standardised means vote, nearer ones more; selection chooses k.

    Source: Wu et al. 2018 (arXiv:1805.01978), section 3.4; temperature 0.07.
    """
    centre, scale = means[0].mean(dim=0), means[0].std(dim=0).clamp_min(1e-6)
    train, selection, val = (F.normalize((own - centre) / scale, dim=-1) for own in means)
    allowed = [min(count, len(train)) for count in counts]
    scores = [float((_vote(selection, train, labels[0], k, num_classes) == labels[1]).float().mean()) for k in allowed]
    chosen = max(range(len(allowed)), key=lambda index: scores[index])
    right = _vote(val, train, labels[0], allowed[chosen], num_classes) == labels[2]
    return counted(right.cpu().numpy()) | {"neighbours": allowed[chosen], "selection_accuracy": scores[chosen]}


def _vote(asked: Tensor, known: Tensor, labels: Tensor, k: int, num_classes: int) -> Tensor:
    named = []
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        nearness, place = (part @ known.T).topk(k, dim=-1)
        votes = torch.zeros(len(part), num_classes, device=part.device)
        votes.scatter_add_(1, labels[place], (nearness / _TEMPERATURE).exp())
        named.append(votes.argmax(-1))
    return torch.cat(named)
