"""Similarity: how much every patch of a video is like one of them, which is named by a pixel of the video and a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.cropping import crop_geometry
from vjepa2cli.encoding.components import TokenBlocks
from vjepa2cli.encoding.pictures import Encoded, draw, frame_patch, heat
from vjepa2cli.encoding.sources import Pixels
from vjepa2cli.errors import InputError


@dataclass(frozen=True)
class Point:
    """A place in a video: column `x` and row `y` in the video's own pixels from the upper left, and `time` in seconds."""

    x: float
    y: float
    time: float = 0.0


@dataclass(frozen=True)
class Patch:
    """A token by its place in the token grid."""

    step: int
    row: int
    column: int


def similarity_map(blocks: TokenBlocks, patch: Patch) -> NDArray[np.float32]:
    """The cosine of every token to that of `patch`, float32 [T, H, W]."""
    start = 0
    chosen: NDArray[np.float64] | None = None
    for block in blocks():
        if start <= patch.step < start + len(block):
            chosen = block[patch.step - start, patch.row, patch.column].astype(np.float64)
            break
        start += len(block)
    assert chosen is not None
    chosen /= max(float(np.linalg.norm(chosen)), 1e-12)
    cosines = [block @ chosen / np.maximum(np.linalg.norm(block, axis=-1), 1e-12) for block in blocks()]
    return np.concatenate(cosines).astype(np.float32)


def check_visible(point: Point, frame_size: tuple[int, int], *, crop: int | tuple[int, int], name: str) -> None:
    """Raise InputError where the crop of a frame of `frame_size` (height, width) leaves the point out."""
    spans = [_span(frame_size, axis, crop=crop) for axis in range(2)]
    if all(low <= at < high for (low, high), at in zip(spans, _centre(point), strict=True)):
        return
    ranges = [f"{int(np.ceil(low - 0.5))} to {int(np.ceil(high - 0.5)) - 1}" for low, high in spans]
    raise InputError(
        f"similarity: x,y {point.x:g},{point.y:g} lies outside of what the encoder sees of {name}; give x {ranges[1]}, "
        f"y {ranges[0]} (of {frame_size[1]} x {frame_size[0]} pixels)"
    )


def locate(point: Point, encoded: Encoded, *, grid: tuple[int, int], frame_size: tuple[int, int]) -> Patch:
    """The patch under a pixel of a frame of `frame_size` (height, width), at the time step that is nearest to the point's time.

    Raises InputError for a pixel that the crop leaves out and for a time that the video does not have.
    """
    check_visible(point, frame_size, crop=encoded.crop, name=encoded.name)
    spans = [_span(frame_size, axis, crop=encoded.crop) for axis in range(2)]
    row, column = (
        int((at - low) / (high - low) * count) for at, (low, high), count in zip(_centre(point), spans, grid, strict=True)
    )
    times = encoded.timestamps
    end = times[-1] + ((times[-1] - times[-2]) / 2 if len(times) > 1 else 1 / encoded.fps)
    if not 0 <= point.time <= end:
        raise InputError(f"similarity: t {point.time:g} s is no time of {encoded.name}; give 0 to {end:.2f} s")
    return Patch(int(np.abs(times - point.time).argmin()), row, column)


def _centre(point: Point) -> tuple[float, float]:
    """(row, column) of the centre of a pixel, where the frame begins at 0."""
    return point.y + 0.5, point.x + 0.5


def _span(frame_size: tuple[int, int], axis: int, *, crop: int | tuple[int, int]) -> tuple[float, float]:
    """Where the crop begins and ends along an axis, in pixels of the frame."""
    geometry = crop_geometry(*frame_size, crop=crop)
    scale = frame_size[axis] / geometry.size[axis]
    return geometry.box[axis] * scale, (geometry.box[axis] + geometry.box[axis + 2]) * scale


def draw_similarity(path: Path, encoded: Encoded, point: Point, *, origin: dict[str, Any]) -> Path:
    """Draw every frame beside the similarity of its patches to the one under `point`, marked; returns the numbers' path, .json.

    Colours run from the least to the greatest cosine of the other patches; the chosen patch has a white box at its own time
    step, and a grey one on the frames of the others.
    """
    _, pixels = next(encoded.frames())
    first = next(iter(encoded.tokens()))
    grid: tuple[int, int] = first.shape[1:3]
    patch = locate(point, encoded, grid=grid, frame_size=pixels.shape[:2])
    cosines = similarity_map(encoded.tokens, patch)
    others = np.delete(cosines.ravel(), np.ravel_multi_index((patch.step, patch.row, patch.column), cosines.shape))
    low, high = (float(others.min()), float(others.max())) if len(others) else (0.0, 1.0)

    def mark(frame: Pixels, step: int) -> None:
        frame_patch(frame, patch.row, patch.column, grid, bright=step == patch.step)

    def maps(step: int, size: tuple[int, int]) -> Pixels:
        drawn = heat(cosines[step], size, low=low, high=high)
        if step == patch.step:
            mark(drawn, step)
        return drawn

    draw(path, encoded, maps, mark=mark)
    body = {
        "source": encoded.name,
        "point": {"x": point.x, "y": point.y, "time": point.time},
        "patch": {"step": patch.step, "row": patch.row, "column": patch.column},
        "range": {"low": round(low, 6), "high": round(high, 6)},
        "timestamps": [round(float(time), 6) for time in encoded.timestamps],
        "similarity": [[[round(float(value), 6) for value in row] for row in step] for step in cosines],
    }
    return write_report(path.with_suffix(".json"), "similarity", body, provenance=origin)
