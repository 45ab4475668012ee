"""How well classes are named: counts first, shares last, so that nothing is a mean of means by accident."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.statistics import wilson_interval

Labels = NDArray[np.int64]
_BINS = 10


def in_top(scores: NDArray[np.floating], labels: Labels, k: int) -> NDArray[np.bool_]:
    """Whether the class `labels` [M] is among the k of the highest scores [..., M, C]: [..., M].

    A class is as high as the number of others that score more; of equal ones those with smaller numbers come first.
    """
    own = np.take_along_axis(scores, np.broadcast_to(labels, scores.shape[:-1])[..., None], axis=-1)
    before = np.arange(scores.shape[-1]) < labels[:, None]
    higher = (scores > own) | ((scores == own) & before)
    above: NDArray[np.bool_] = higher.sum(axis=-1) < k
    return above


def class_mean_recall(right: NDArray[np.bool_], labels: Labels) -> float | None:
    """The mean, over the classes that occur in `labels` [M], of the share of theirs that is `right` [M]; None for no labels."""
    totals = np.bincount(labels)
    shares = np.bincount(labels, weights=right)[totals > 0] / totals[totals > 0]
    return float(shares.mean()) if len(shares) else None


def confusion(predicted: Labels, labels: Labels) -> list[list[int]]:
    """Every pair of a true and a predicted class that occurs, and how often: [true, predicted, count], sorted."""
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return [[int(true), int(named), int(count)] for (true, named), count in zip(pairs, counts, strict=True)]


def calibration(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> dict[str, Any]:
    """How often answers of a confidence [M] are right, in ten equal bins, and the expected calibration error.

    Source: Guo et al. 2017 (arXiv:1706.04599), section 2.
    """
    place = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    sums, correct = (np.bincount(place, weights=values, minlength=_BINS) for values in (confidence, right))
    error = float(np.abs(correct - sums).sum() / max(1, len(right)))
    bins = [
        {"confidence": float(sums[index] / counts[index]), "right": int(correct[index]), "total": int(counts[index])}
        for index in range(_BINS)
        if counts[index]
    ]
    return {"expected_error": error, "bins": bins}


def counted(right: NDArray[np.bool_]) -> dict[str, Any]:
    """Right answers of all, with a Wilson 95 % interval, as a report holds them."""
    correct, total = int(right.sum()), len(right)
    low, high = wilson_interval(correct, total)
    return {"correct": correct, "total": total, "accuracy": correct / total if total else None, "interval": [low, high]}
