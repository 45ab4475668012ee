"""What is to be seen: images, or the last frames of videos, in order, each with the number of actions that lead to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.file_faults import VIDEO_SUFFIXES
from vjepa2cli.data.video import iterate_frames, read_image
from vjepa2cli.errors import InputError, PlanningError, VideoError

Pixels = NDArray[np.uint8]
Image = str | Path | Pixels


@dataclass(frozen=True)
class Goal:
    """An image, or a video that ends in it, and how many `actions` lead there; None: as many as the planner looks ahead."""

    image: Image
    actions: int | None = None


def parse_goal(text: str) -> Goal:
    """Read `IMAGE` or `IMAGE:ACTIONS` as people type it; raises InputError for a number of actions that is none."""
    name, colon, count = text.rpartition(":")
    if not colon or Path(text).exists() or not count.lstrip("-").isdigit():
        return Goal(Path(text))
    if int(count) < 1:
        raise InputError(f"--goal {text}: {count} actions lead nowhere; write IMAGE:4 for four actions, or IMAGE alone")
    return Goal(Path(name), int(count))


def as_goals(goal: Image | Goal | Sequence[Goal]) -> list[Goal]:
    """One or more goals; raises PlanningError where there are none, or several of which one does not say how many actions."""
    goals = [goal] if isinstance(goal, Goal) else [Goal(goal)] if isinstance(goal, str | Path | np.ndarray) else list(goal)
    if not goals:
        raise PlanningError("goal: none given; name at least one image")
    if len(goals) > 1 and any(goal.actions is None for goal in goals):
        raise PlanningError("goal: each of several needs its number of actions; write --goal FIRST.png:4 --goal SECOND.png:10")
    return goals


def read_frame(image: Image, name: str) -> Pixels:
    """An image, or the last frame of a video, as uint8 [Y, X, 3]; raises VideoError or InputError where it is none."""
    if isinstance(image, str | Path):
        path = Path(image)
        return _last_frame(path) if path.suffix.lower() in VIDEO_SUFFIXES else read_image(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"{name}: an array {list(image.shape)} of {image.dtype}; give RGB as uint8 [Y, X, 3], or a path")
    return image


def _last_frame(path: Path) -> Pixels:
    last = None
    for _, _, last in iterate_frames(path):  # noqa: B007  A loop to its end: what a header says of the end need not be so.
        pass
    if last is None:
        raise VideoError(f"{path}: holds no frame that can be decoded; give another video, or an image")
    return last
