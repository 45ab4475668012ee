"""What an episode looked like: a film with the goal in its corner and the energy below it, and a film strip."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.video import resize, write_image, write_video
from vjepa2cli.planning.closed_loop import Played
from vjepa2cli.simulation.environment import View

Pixels = NDArray[np.uint8]

_SIDE, _INSET, _FRAME = 288, 96, 2
_CURVE_HEIGHT, _CURVE_MARGIN = 64, 6
_PAPER, _INK, _FAINT, _MARK = (255, 255, 255), (31, 31, 31), (205, 205, 205), (214, 96, 40)
_STRIP_FRAMES = 9
_GAP = 4


def draw_episode(
    folder: Path, name: str, played: Played, goals: Sequence[View], energies: Sequence[float], *, fps: float
) -> dict[str, Any]:
    """Write `<name>.mp4`, a film of the camera, and `<name>.png`, a film strip that ends in the goals.

    In the film, the goal that is due lies in the corner; below is the energy at every observation, so far as it has come.
    Returns their names relative to the folder's parent, and which frames the strip shows.
    """
    frames = np.stack([observation.frame for observation in played.observations])
    ends = np.cumsum([view.actions for view in goals])
    due = [min(int((ends <= index).sum()), len(goals) - 1) for index in range(len(frames))]
    insets = [_inset(view.frame) for view in goals]
    film = [
        np.concatenate([_with_inset(_square(frame), insets[goal]), _curve(energies, upto=index)])
        for index, (frame, goal) in enumerate(zip(frames, due, strict=True))
    ]
    write_video(folder / f"{name}.mp4", film, fps=fps)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int)).tolist()
    gap = np.full((frames.shape[1], _GAP, 3), 255, np.uint8)
    strip = [part for index in shown for part in (frames[index], gap)]
    last = [part for view in goals for part in (gap, view.frame)]
    write_image(folder / f"{name}.png", np.concatenate([*strip, *last], axis=1))
    return {"video": f"{folder.name}/{name}.mp4", "filmstrip": f"{folder.name}/{name}.png", "frames": shown}


def _square(frame: Pixels) -> Pixels:
    return resize(frame, (_SIDE, _SIDE))


def _inset(goal: Pixels) -> Pixels:
    """A goal, small and in a frame."""
    inset = np.full((_INSET, _INSET, 3), _PAPER, np.uint8)
    inner = _INSET - 2 * _FRAME
    inset[_FRAME:-_FRAME, _FRAME:-_FRAME] = resize(goal, (inner, inner))
    return inset


def _with_inset(frame: Pixels, inset: Pixels) -> Pixels:
    framed = frame.copy()
    framed[:_INSET, -_INSET:] = inset
    return framed


def _curve(energies: Sequence[float], *, upto: int) -> Pixels:
    """Energies from 0 to the highest over the width of the film, what has not come yet in a fainter colour."""
    paper = np.full((_CURVE_HEIGHT, _SIDE, 3), _PAPER, np.uint8)
    inner = _CURVE_HEIGHT - 2 * _CURVE_MARGIN
    x = _CURVE_MARGIN + np.linspace(0, _SIDE - 2 * _CURVE_MARGIN - 1, len(energies))
    y = _CURVE_MARGIN + (inner - 1) * (1 - np.asarray(energies) / max(*energies, 1e-12))
    columns = np.arange(int(x[0]), int(x[-1]) + 1)
    rows = np.interp(columns, x, y)
    reach = np.maximum(1.0, np.abs(np.gradient(rows)) / 2 + 0.5) if len(rows) > 1 else np.ones(1)
    for column, row, half in zip(columns, rows, reach, strict=True):
        top, bottom = int(np.floor(row - half)), int(np.ceil(row + half))
        paper[max(top, 0) : bottom + 1, column] = _INK if column <= x[upto] else _FAINT
    paper[-_CURVE_MARGIN, _CURVE_MARGIN : _SIDE - _CURVE_MARGIN] = _FAINT
    middle, here = int(y[upto]), int(x[upto])
    paper[max(middle - 3, 0) : middle + 4, max(here - 3, 0) : here + 4] = _MARK
    return paper
