"""Signs of collapse and of divergence."""

import torch
from torch import Tensor

from vjepa2cli.errors import TrainingError


def effective_rank(features: Tensor) -> float:
    """RankMe of features [M, D]: the exponential of the entropy of the normalised singular values, between 1 and min(M, D).

    Source: Garrido et al. 2023 (arXiv:2210.02885).
    """
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


def content_rank(tokens: Tensor) -> float:
    """Effective rank of tokens [B, N, D] after each position's mean over the batch is removed, so that only content counts."""
    content = tokens.float() - tokens.float().mean(dim=0, keepdim=True)
    return effective_rank(content.flatten(0, 1))


def feature_std(tokens: Tensor) -> float:
    """Standard deviation over samples, averaged over dimensions, of tokens [B, N, D]."""
    return float(tokens.float().flatten(0, 1).std(dim=0).mean())


def require_finite(loss: float, *, step: int) -> None:
    """Raise TrainingError before the update where a loss is not finite; the last checkpoint stays good."""
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise TrainingError(
            f"step {step}: the loss is {loss}; the last checkpoint is untouched. Lower optimizer.lr, lengthen "
            "schedule.warmup_steps, or set precision: fp32"
        )
