"""Signs of collapse and of divergence: what is measured, and when it counts as a fault."""

import math
import statistics
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vjepa2cli.settings import HealthConfig

_HISTORY, _ENOUGH = 64, 16


def effective_rank(features: Tensor) -> float:
    """RankMe of features [M, D]: the exponential of the entropy of the normalised singular values, between 1 and min(M, D).

    NaN where the features are not finite. Source: Garrido et al. 2023 (arXiv:2210.02885).
    """
    features = features.double()
    if not bool(features.isfinite().all()):  # which the eigenvalues would answer with an error of LAPACK
        return math.nan
    gram = features.T @ features if len(features) > features.shape[1] else features @ features.T
    squares = torch.linalg.eigvalsh(gram)
    squares = torch.where(squares > squares[-1] * len(gram) * torch.finfo(torch.float64).eps, squares, 0.0)
    values = squares.sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


def at_most(count: int, tokens: Tensor) -> Tensor:
    """At most `count` evenly spread positions of tokens [B, N, D], the same of every clip."""
    return tokens[:, :: -(-tokens.shape[1] // count)]


def content(tokens: Tensor) -> Tensor:
    """Tokens [B, N, D] without what every clip shows at a position, as [B * N, D] float64: only what tells clips apart."""
    tokens = tokens.double()
    return (tokens - tokens.mean(dim=0, keepdim=True)).flatten(0, 1)


def content_rank(tokens: Tensor) -> float:
    """Effective rank of the content of tokens [B, N, D]."""
    return effective_rank(content(tokens))


def feature_std(tokens: Tensor) -> float:
    """Standard deviation over samples, averaged over dimensions, of tokens [B, N, D]."""
    return float(tokens.float().flatten(0, 1).std(dim=0).mean())


def feature_figures(teacher: Tensor, student: Tensor) -> dict[str, float]:
    """What tells of collapse, from the tokens [B, N, D] that teacher and student make of the same clips.

    `rank` and `spread` (standard deviation, mean over dimensions) are of the content, `spread_min` of its stillest dimension,
    `std` of all tokens; `correlation` is the root mean square of the content's correlations between two dimensions.
    """
    kept = content(teacher)
    spread = kept.std(dim=0)
    covariance = kept.T @ kept / max(1, len(kept) - 1)
    scale = spread.clamp_min(1e-12)
    correlation = covariance / (scale[:, None] * scale[None, :])
    off_diagonal = correlation[~torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)]
    return {
        "rank": effective_rank(kept),
        "std": feature_std(teacher),
        "spread": float(spread.mean()),
        "spread_min": float(spread.min()),
        "correlation": float(off_diagonal.square().mean().sqrt()),
        "teacher_student_cosine": float(F.cosine_similarity(teacher.float(), student.float(), dim=-1).mean()),
    }


def not_finite(figures: Mapping[str, float]) -> list[str]:
    """The names of the figures that are NaN or infinite."""
    return [name for name, value in figures.items() if not math.isfinite(value)]


class Watch:
    """Remembers what healthy looked like, and says why a loss, a gradient or an evaluation does not."""

    def __init__(self, config: HealthConfig) -> None:
        """Nothing is known yet."""
        self._config = config
        self._levels: deque[float] = deque(maxlen=_HISTORY)
        self._first: dict[str, float] = {}

    def state(self) -> dict[str, object]:
        """What to keep with a checkpoint, so that a resumed run judges as one that was never stopped."""
        return {"levels": list(self._levels), "first": dict(self._first)}

    def restore(self, levels: list[float], first: Mapping[str, float]) -> None:
        """Take up what `state` gave."""
        self._levels, self._first = deque(levels, maxlen=_HISTORY), dict(first)

    def fault_of_loss(self, level: float) -> str | None:
        """Why a loss is none to learn from; one that is joins those that the next are compared with."""
        fault = self._fault_of("the loss", level)
        if fault is None:
            self._levels.append(level)
        return fault

    def fault_of_update(self, level: float) -> str | None:
        """Why the state that an update led to is none to keep; `level` is what the batch of the update costs under it."""
        return self._fault_of("after the update the loss of its batch", level)

    def _fault_of(self, what: str, level: float) -> str | None:
        if not math.isfinite(level):
            return f"{what} is {level}"
        usual = statistics.median(self._levels) if len(self._levels) >= _ENOUGH else math.inf
        if level > self._config.spike_factor * usual:
            return f"{what} jumped to {level:.4g}, the median of the last {len(self._levels)} steps is {usual:.4g}"
        return None

    def fault_of_gradient(self, norm: float) -> str | None:
        """Why a gradient is none to follow."""
        return None if math.isfinite(norm) else f"the gradient's norm is {norm}"

    def fault_of_figures(self, figures: Mapping[str, float]) -> str | None:
        """Why an evaluation speaks of ruin or of collapse; the first sound one is what the others are compared with."""
        if broken := not_finite(figures):
            return f"the evaluation found no finite {', '.join(broken)}"
        self._first = self._first or dict(figures)
        for name, share in (("rank", self._config.min_rank_share), ("spread", self._config.min_spread_share)):
            if name in figures and not figures[name] >= share * self._first[name]:
                now, before = figures[name], self._first[name]
                return (
                    f"the features have collapsed: their {name} is {now:.4g}, below {share:g} of the {before:.4g} it was at first"
                )
        return None
