"""Pictures of features: what the encoder sees, and beside it a map of its tokens, smooth from patch to patch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.cropping import evaluation_crop
from vjepa2cli.data.video import resize, write_image, write_video
from vjepa2cli.encoding.components import Basis, TokenBlocks
from vjepa2cli.encoding.sources import Pixels, TimedFrame

_SMALLEST_HEIGHT = 256
_HEAT = np.array([(8, 4, 26), (74, 12, 96), (158, 36, 97), (226, 88, 52), (250, 168, 45), (252, 255, 190)])
_HEAT_OF_LEVEL = np.round([np.interp(np.linspace(0, 5, 256), range(6), channel) for channel in _HEAT.T]).T.astype(np.uint8)


@dataclass(frozen=True)
class View:
    """How one input is shown: the seconds of its time steps [T], and its frames as they were encoded, `fps` a second."""

    name: str
    timestamps: NDArray[np.float64]
    frames: Callable[[], Iterator[TimedFrame]]
    fps: float
    still: bool
    crop: int | tuple[int, int]


@dataclass(frozen=True)
class Encoded(View):
    """One input with its tokens."""

    tokens: TokenBlocks


def draw_components(path: Path, encoded: Encoded, basis: Basis) -> None:
    """Each frame, and beside it the three components of its tokens as a colour; the background, if there is one, is black."""
    colours = np.concatenate([basis.colours(block) for block in encoded.tokens()])
    shown = np.concatenate([basis.mask(block) for block in encoded.tokens()])

    def maps(step: int, size: tuple[int, int]) -> Pixels:
        light = smooth(np.repeat(255 * shown[step, ..., None].astype(np.uint8), 3, -1), size)
        return np.round(smooth(colours[step], size) * (light / 255.0)).astype(np.uint8)

    draw(path, encoded, maps)


def draw(
    path: Path,
    view: View,
    maps: Callable[[int, tuple[int, int]], Pixels],
    *,
    mark: Callable[[Pixels, int], None] = lambda frame, step: None,
) -> None:
    """Write an image or a video of every frame beside the map of its time step, `maps(step, (height, width))`.

    `mark(frame, step)` may draw on the frame. What is small is enlarged by a whole number.
    """

    def pictures() -> Iterator[Pixels]:
        for time, pixels in view.frames():
            frame = evaluation_crop(pixels[None], crop=view.crop)[0]
            step = int(np.abs(view.timestamps - time).argmin())
            factor = -(-_SMALLEST_HEIGHT // frame.shape[0])
            size = (frame.shape[0] * factor, frame.shape[1] * factor)
            frame = resize(frame, size).copy()
            mark(frame, step)
            yield np.concatenate([frame, maps(step, size)], axis=1)

    if view.still:
        write_image(path, next(pictures()))
    else:
        write_video(path, pictures(), fps=view.fps)


def smooth(patches: Pixels, size: tuple[int, int]) -> Pixels:
    """One colour a patch, uint8 [H, W, 3], over `size` (height, width) pixels, bilinear between the centres of the patches."""
    return resize(patches, size, method="bilinear")


def heat(values: NDArray[np.floating], size: tuple[int, int], *, low: float, high: float) -> Pixels:
    """One value a patch, [H, W], as smooth colours: `low` is nearly black, then purple, red and orange, `high` is pale yellow."""
    levels = np.round(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)
    return _HEAT_OF_LEVEL[smooth(np.repeat(levels[..., None], 3, -1), size)[..., 0]]


def frame_patch(frame: Pixels, row: int, column: int, grid: tuple[int, int], *, bright: bool) -> None:
    """Draw a white box with a dark edge, or a grey one, around one patch of `grid` (rows, columns), in place."""
    height, width = frame.shape[0] // grid[0], frame.shape[1] // grid[1]
    top, left = row * height, column * width
    for inset, colour in ((0, 0), (1, 255 if bright else 128), (2, 255 if bright else 128), (3, 0)):
        bottom, right = top + height - 1 - inset, left + width - 1 - inset
        frame[[top + inset, bottom], left + inset : right + 1] = colour
        frame[top + inset : bottom + 1, [left + inset, right]] = colour


def blocks_of(encoded: Iterable[Encoded]) -> TokenBlocks:
    """The tokens of several inputs as those of one."""
    inputs = list(encoded)
    return lambda: (block for one in inputs for block in one.tokens())
