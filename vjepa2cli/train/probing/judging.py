"""Heads judged on a split: every sample once, its answers averaged over views, counts before shares."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.classification import (
    calibration,
    class_mean_recall,
    confusion,
    counted,
    in_top,
)
from vjepa2cli.artifacts.statistics import clustered_interval
from vjepa2cli.models.probe_sweep import ProbeSweep
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.train.probing.features import Features, compute
from vjepa2cli.train.probing.samples import Question

_TOP = 5
_BOOTSTRAP_STREAM = 3
_TOGETHER = 1 << 22
"""Numbers of tokens that are judged at once; more is no faster."""


@dataclass(frozen=True)
class Answers:
    """What each of K heads says of M samples, for one question.

    `named` [K, M] is the class with the highest probability and `confidence` that probability; `right` and `right_of_five` say
    whether the true class is it, or among the five highest. `labels` [M].
    """

    labels: NDArray[np.int64]
    named: NDArray[np.int64]
    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]
    right_of_five: NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """The answers to every question."""

    answers: tuple[Answers, ...]

    def selection_scores(self) -> list[float]:
        """What a head is chosen by: accuracy, or with several questions the class-mean recall at 5 of the last one."""
        last = self.answers[-1]
        if len(self.answers) == 1:
            return [float(share) for share in last.right.mean(axis=1)]
        return [class_mean_recall(right, last.labels) or 0.0 for right in last.right_of_five]

    def recalls(self, head: int) -> list[float | None]:
        """Class-mean recall at 5 of each question."""
        return [class_mean_recall(answers.right_of_five[head], answers.labels) for answers in self.answers]


@torch.inference_mode()
def judge(
    sweep: ProbeSweep, features: Features, targets: Tensor, *, precision: str, progress: Progress = SILENT, name: str = ""
) -> Scores:
    """Ask every head about every sample of a split; tokens that are not cached are encoded on the way, and then forgotten."""
    sweep.eval()
    device = next(sweep.parameters()).device
    seen: list[int] = []
    parts: list[tuple[_Part, ...]] = []
    if name:
        progress.start(name, total=features.num_rows)
    for rows, tokens in _batches(features):
        with compute(precision, device):
            answers = sweep(tokens.to(device, torch.float32).flatten(0, 1))  # [K, B * views, classes] a question
        # The mean over views of softmax, or for several questions of the sigmoid that their loss trains: in the same order.
        turned = [logits.float().softmax(-1) if len(answers) == 1 else logits.float().sigmoid() for logits in answers]
        means = [
            probability.reshape(len(probability), len(rows), -1, probability.shape[-1]).mean(dim=2).cpu().numpy()
            for probability in turned
        ]
        labels = targets[rows].numpy()
        parts.append(tuple(_part(probability, labels[:, question]) for question, probability in enumerate(means)))
        seen += rows
        if name:
            progress.advance(len(rows))
    if name:
        progress.finish()
    sweep.train()
    order = np.argsort(seen)
    assert len({*seen}) == len(seen) == features.num_rows
    return Scores(tuple(_joined(own, order) for own in zip(*parts, strict=True)))


_Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]


def _batches(features: Features) -> Iterator[tuple[list[int], Tensor]]:
    """Every row once, those of the cache first: rows, and their tokens [B, views, N, D], as many as are handled well together."""
    kept = 0 if features.cache is None else features.cache.num_kept
    held: list[tuple[int, Tensor]] = []
    for row, tokens in chain(_cached(features, kept), features.encode(range(kept, features.num_rows))):
        held.append((row, tokens))
        if len(held) * tokens.numel() >= _TOGETHER:
            yield _stacked(held)
            held = []
    if held:
        yield _stacked(held)


def _cached(features: Features, kept: int) -> Iterator[tuple[int, Tensor]]:
    for row in range(kept):
        yield row, _by_view(features.get([row])[0], features.views)


def _by_view(tokens: Tensor, views: int) -> Tensor:
    return tokens.reshape(views, -1, tokens.shape[-1])


def _stacked(held: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    return [row for row, _ in held], torch.stack([tokens for _, tokens in held])


def _part(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> _Part:
    """From probabilities [K, B, C]; a head whose answers are not numbers is right nowhere."""
    probabilities = np.nan_to_num(probabilities, nan=0.0)
    sound = probabilities.max(axis=-1) > 0
    named = probabilities.argmax(axis=-1)
    of_five = in_top(probabilities, labels, min(_TOP, probabilities.shape[-1]))
    return np.broadcast_to(labels, named.shape), named, probabilities.max(axis=-1), (named == labels) & sound, of_five & sound


def _joined(parts: Sequence[_Part], order: NDArray[np.intp]) -> Answers:
    labels, named, confidence, right, of_five = (np.concatenate(own, axis=1)[:, order] for own in zip(*parts, strict=True))
    return Answers(labels[0], named, confidence, right, of_five)


def tell(answers: Answers, head: int, question: Question) -> dict[str, Any]:
    """One head's result on one question, as a report holds it."""
    right, labels = answers.right[head], answers.labels
    per_class = {
        name: {"correct": int(right[labels == index].sum()), "total": int((labels == index).sum())}
        for index, name in enumerate(question.classes)
    }
    told = counted(right) | {
        "class_mean_accuracy": class_mean_recall(right, labels),
        "per_class": per_class,
        "confusion": confusion(answers.named[head], labels),
        "calibration": calibration(answers.confidence[head], right),
    }
    if len(question.classes) > _TOP:
        told |= {
            "top5": counted(answers.right_of_five[head]),
            "recall_at_5": class_mean_recall(answers.right_of_five[head], labels),
        }
    return told


def lead(
    right: NDArray[np.bool_], other: NDArray[np.bool_], groups: Sequence[str], *, seed: int
) -> dict[str, float | list[float]]:
    """By how much the share of `right` answers is above that of `other` on the same samples, with its 95 % bootstrap interval.

    Samples of one of the `groups` are alike, and drawn together.
    """
    ahead = right.astype(np.float64) - other.astype(np.float64)
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return {"mean": float(ahead.mean()), "interval": clustered_interval(ahead, numbers, key=[seed, _BOOTSTRAP_STREAM])}


def best(scores: Sequence[float], alive: Sequence[bool]) -> int:
    """The first head with the highest score among those that have not diverged; of none the first."""
    return max(range(len(scores)), key=lambda index: (alive[index], scores[index], -index))
