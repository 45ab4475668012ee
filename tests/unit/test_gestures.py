"""Gestures show their class in how things move, and nothing of it in the frame that all of them pass."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.collection import collect
from vjepa2cli.errors import ConfigError, DependencyError
from vjepa2cli.settings import CollectConfig, SceneConfig
from vjepa2cli.simulation.gestures import _PIVOT_HIGH, _PIVOT_LOW, GESTURE_FRAMES, GESTURES, PIVOT, Gesture, play_gesture
from vjepa2cli.simulation.tabletop import Tabletop


@pytest.fixture(scope="module")
def tabletop() -> Iterator[Tabletop]:
    try:
        environment = Tabletop(image_size=32)
    except DependencyError as error:
        pytest.skip(str(error))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def played(tabletop: Tabletop) -> list[Gesture]:
    return [play_gesture(tabletop, seed=0, index=index, max_translation=0.075) for index in range(len(GESTURES))]


def hand(gesture: Gesture) -> np.ndarray:
    """The hand's places in the gesture, [16, 3]."""
    return np.stack([observation.state[:3] for observation in gesture.observed[gesture.start :]])


def test_every_class_passes_the_same_kind_of_pose_with_the_thing_held(played: list[Gesture]) -> None:
    assert tuple(gesture.label for gesture in played) == GESTURES
    for gesture in played:
        path = hand(gesture)
        assert len(path) == GESTURE_FRAMES
        assert gesture.held
        assert (path[PIVOT] > _PIVOT_LOW - 0.01).all()
        assert (path[PIVOT] < _PIVOT_HIGH + 0.01).all()


def test_gestures_move_as_their_names_say(played: list[Gesture]) -> None:
    moved = {gesture.label: hand(gesture)[-1] - hand(gesture)[0] for gesture in played}
    # The camera faces the arm, so that its right is y and nearer to it is x.
    for label, axis, sign in (
        ("moving left to right", 1, 1),
        ("moving right to left", 1, -1),
        ("moving closer", 0, 1),
        ("moving away", 0, -1),
        ("lifting", 2, 1),
        ("lowering", 2, -1),
    ):
        assert sign * moved[label][axis] > 0.06
        assert np.abs(np.delete(moved[label], axis)).max() < 0.02
    assert np.abs(moved["pretending to drop"]).max() < 0.02
    openings = {gesture.label: gesture.observed[-1].state[6] for gesture in played}
    assert openings["dropping"] < 0.2 < openings["pretending to drop"]
    assert openings["putting behind"] < 0.2


def test_a_gesture_is_a_function_of_its_seed(tabletop: Tabletop, played: list[Gesture]) -> None:
    again = play_gesture(tabletop, seed=0, index=3, max_translation=0.075)
    assert (hand(again) == hand(played[3])).all()
    assert (again.observed[-1].frame == played[3].observed[-1].frame).all()
    other = play_gesture(tabletop, seed=1, index=3, max_translation=0.075)
    assert (hand(again)[PIVOT] != hand(other)[PIVOT]).any()


def test_collected_gestures_are_labelled_windows(tmp_path: Path, tabletop: Tabletop) -> None:
    config = CollectConfig(episodes=2, image_size=32, gestures=True)
    collect(tmp_path / "g", config=config)
    with (tmp_path / "g" / "motion_windows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["num_frames"]) for row in rows] == [(label, str(GESTURE_FRAMES)) for label in GESTURES[:2]]
    with pytest.raises(ConfigError, match=r"scene\.num_objects: 1 is too few"):
        collect(tmp_path / "h", config=CollectConfig(gestures=True, scene=SceneConfig(num_objects=1)))
