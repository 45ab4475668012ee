"""What a camera sees of the robot: how much of the picture moves, where, and whether it moves when the robot does."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.alignment import find_lag
from vjepa2cli.data.video import resize

Numbers = NDArray[np.float64]

_EPISODES = 8
_FRAMES = 120
_CELLS = 24
# A cell of the picture moves where it changes by this share of what the liveliest one does.
_MOVES = 0.2
# Levels of 255: sensors and codecs alone change a picture by less.
_NOISE = 6.0
_MOST = 0.8
_ALL = 0.9
_HARDLY = 0.01
_MAX_LAG = 5
_ALIKE = 0.4
_CLEARLY = 0.1


def check_framing(store: VideoStore, entries: Sequence[VideoEntry], speeds: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Findings on every camera; `speeds` says by episode how much the robot moves in each step.

    A few episodes stand for all, and some seconds of each.
    """
    cameras: dict[str, list[VideoEntry]] = {}
    for entry in entries:
        cameras.setdefault(entry.camera or "", []).append(entry)
    return [_check_camera(store, name, found, speeds) for name, found in sorted(cameras.items())]


def _check_camera(store: VideoStore, name: str, entries: Sequence[VideoEntry], speeds: Mapping[str, Numbers]) -> dict[str, Any]:
    chosen = [entries[index] for index in np.unique(np.linspace(0, len(entries) - 1, _EPISODES).round().astype(int))]
    heat, pairs = np.zeros((_CELLS, _CELLS)), []
    for entry in chosen:
        start = max(0, (entry.num_frames - _FRAMES) // 2)
        stop = min(entry.num_frames, start + _FRAMES)
        changes = _changes(store.frames(entry.key, start, stop))
        heat += changes.mean(0) / len(chosen)
        energy, speed = changes.mean((1, 2)), speeds[entry.episode][start : stop - 1]
        pairs.append((energy - energy.mean(), speed - speed.mean()))
    lag = find_lag(pairs, max_lag=_MAX_LAG, least=_ALIKE)
    aspect = chosen[0].width / chosen[0].height
    found: dict[str, Any] = {
        "camera": name,
        "looked_at": len(chosen),
        "aspect": _rounded(aspect),
        "moving_share": _rounded((heat > _MOVES * heat.max()).mean()) if heat.any() else 0.0,
        "in_centre": _rounded(_share_inside(heat, aspect, 1.0)),
        "in_wide": _rounded(_share_inside(heat, aspect, 1.35)),
        "heat": [[_rounded(value) for value in row] for row in heat],
        "lag_rows": None if lag.rows is None else _rounded(lag.rows),
        "correlation": _rounded(lag.correlation),
        "curve": [_rounded(value) for value in lag.curve],
    }
    return found | {"warnings": _warnings(found)}


def _changes(frames: NDArray[np.uint8]) -> Numbers:
    """By how many levels above noise each cell of the picture changes from frame to frame, [F - 1, cells, cells]."""
    small = resize(frames, (_CELLS, _CELLS)).astype(np.float64)
    return np.asarray(np.clip(np.abs(np.diff(small, axis=0)).max(-1) - _NOISE, 0, None))


def _share_inside(heat: Numbers, aspect: float, kept: float) -> float:
    """How much of the motion lies within the central region of the aspect `kept` that 'precompute' cuts out."""
    if not heat.any():
        return 0.0
    width = min(1.0, kept / aspect)
    height = min(1.0, aspect) if kept == 1.0 else 1.0
    centres = (np.arange(_CELLS) + 0.5) / _CELLS - 0.5
    inside = (np.abs(centres)[:, None] <= height / 2) & (np.abs(centres)[None, :] <= width / 2)
    return float(heat[inside].sum() / heat.sum())


def _warnings(found: Mapping[str, Any]) -> list[str]:
    camera = f"camera {found['camera']}"
    if found["moving_share"] < _HARDLY:
        return [f"{camera}: hardly anything moves in its picture; is the arm in it, and large enough?"]
    said = []
    # Where the camera itself moves, so does all of the picture.
    if found["in_centre"] < _MOST and found["moving_share"] < _ALL:
        said.append(
            f"{camera}: {1 - found['in_centre']:.0%} of what moves lies outside the central square that 'precompute' keeps; "
            f"set geometry=wide there ({1 - found['in_wide']:.0%} outside), or crop to the arm in robot.yaml"
        )
    lag = found["lag_rows"]
    middle = found["curve"][_MAX_LAG]
    if lag is not None and abs(lag) >= 1 and found["correlation"] - middle > _CLEARLY:
        side = "before" if lag > 0 else "after"
        said.append(f"{camera}: its picture moves {abs(lag):.1f} rows {side} the states say so; frames and rows are shifted")
    return said


def _rounded(value: Any) -> float:
    return float(f"{float(value):.4g}")
