"""Metrics agree with slow references on random cases."""

import numpy as np
import pytest

from vjepa2cli.artifacts.classification import calibration, class_mean_recall, confusion, counted, in_top
from vjepa2cli.train.probing.judging import lead

CASES = range(30)


def case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [M, C] with ties, and labels [M] that leave classes out."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(6, 12))
    return rng.integers(0, 6, (40, classes)).astype(np.float32), rng.integers(0, classes - 1, 40)


@pytest.mark.parametrize("seed", CASES)
def test_recall_at_five_is_the_slow_one(seed: int) -> None:
    scores, labels = case(seed)
    hits: dict[int, list[bool]] = {}
    for row, label in zip(scores, labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))
        hits.setdefault(label, []).append(label in order[:5])
    expected = np.mean([np.mean(own) for own in hits.values()])
    assert class_mean_recall(in_top(scores, labels, 5), labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", CASES)
def test_counts_are_the_slow_ones(seed: int) -> None:
    scores, labels = case(seed)
    named = scores.argmax(axis=1)
    right = named == labels
    shares = [np.mean([named[row] == label for row in range(40) if labels[row] == label]) for label in sorted({*labels.tolist()})]
    assert class_mean_recall(right, labels) == pytest.approx(np.mean(shares), abs=1e-12)
    pairs = list(zip(labels.tolist(), named.tolist(), strict=True))
    assert confusion(named, labels) == [[*pair, pairs.count(pair)] for pair in sorted({*pairs})]
    assert counted(right)["correct"] == sum(true == predicted for true, predicted in pairs)


def test_calibration_counts_every_answer_once() -> None:
    confidence, right = np.array([0.05, 0.55, 0.57, 1.0]), np.array([False, True, False, True])
    found = calibration(confidence, right)
    assert [(one["right"], one["total"]) for one in found["bins"]] == [(0, 1), (1, 2), (1, 1)]
    assert found["expected_error"] == pytest.approx((0.05 + abs(1 - 1.12) + 0.0) / 4)


def test_no_answers_have_no_share() -> None:
    assert counted(np.zeros(0, bool))["accuracy"] is None
    assert class_mean_recall(np.zeros(0, bool), np.zeros(0, int)) is None


def test_a_lead_is_the_difference_of_the_shares_and_says_so_of_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    first, other, groups = rng.random(200) < 0.7, rng.random(200) < 0.5, [str(index // 4) for index in range(200)]
    ahead, behind = lead(first, other, groups, seed=0), lead(other, first, groups, seed=0)
    assert ahead["mean"] == pytest.approx(first.mean() - other.mean()) == -behind["mean"]
    low, high = ahead["interval"]
    assert 0 < low < ahead["mean"] < high
    assert behind["interval"] == pytest.approx([-high, -low])


def test_a_lead_over_oneself_is_nothing_however_few_are_right() -> None:
    right = np.random.default_rng(0).random(40) < 0.2
    assert lead(right, right.copy(), ["a"] * 40, seed=0) == {"mean": 0.0, "interval": [0.0, 0.0]}


def test_samples_of_one_group_tell_less_than_as_many_apart() -> None:
    first = np.repeat(np.random.default_rng(0).random(30) < 0.6, 10)
    other = np.zeros(300, bool)
    together = lead(first, other, [str(index // 10) for index in range(300)], seed=0)["interval"]
    apart = lead(first, other, [str(index) for index in range(300)], seed=0)["interval"]
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
