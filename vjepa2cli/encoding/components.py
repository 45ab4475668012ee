"""Principal components of tokens as colours: one basis for all time steps, or all inputs, and a mask of the foreground.

Tokens are read in blocks, as often as needed, and never held, so that a long video costs no memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenBlocks = Callable[[], Iterable[NDArray[np.float32]]]
"""Reads the tokens of one input or several from their beginning, as blocks [T, H, W, D]."""

_Floats = NDArray[np.float64]
_NUM_COLOURS = 3


@dataclass(frozen=True)
class Axes:
    """Principal axes [D, K] of tokens around `mean` [D], the largest first; the largest weight of each is positive."""

    mean: _Floats
    axes: _Floats

    def scores(self, tokens: NDArray[np.float32]) -> _Floats:
        """Tokens [..., D] -> [..., K]."""
        projected: _Floats = (tokens - self.mean) @ self.axes
        return projected


@dataclass(frozen=True)
class Foreground:
    """The tokens whose first score among all tokens lies beyond `threshold`, on the side of `sign`."""

    first: Axes
    threshold: float
    sign: int

    def mask(self, tokens: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tokens [..., D] -> [...]."""
        beyond: NDArray[np.bool_] = self.sign * (self.first.scores(tokens)[..., 0] - self.threshold) > 0
        return beyond


@dataclass(frozen=True)
class Basis:
    """Three axes as red, green and blue, each from `low` [3] to `high` [3]; with a foreground they are those of its tokens."""

    axes: Axes
    low: _Floats
    high: _Floats
    foreground: Foreground | None

    def colours(self, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Tokens [..., D] -> uint8 [..., 3]."""
        shares = np.clip((self.axes.scores(tokens) - self.low) / np.maximum(self.high - self.low, 1e-12), 0, 1)
        return np.round(255 * shares).astype(np.uint8)

    def mask(self, tokens: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tokens [..., D] -> [...]: what is foreground, or everything."""
        return np.ones(tokens.shape[:-1], np.bool_) if self.foreground is None else self.foreground.mask(tokens)


def fit_basis(blocks: TokenBlocks, *, foreground: bool = False) -> Basis:
    """The basis of the given tokens; every colour runs from the 1st to the 99th percentile of its scores.

    With `foreground` the first component of all tokens is cut in two where the halves differ most (Otsu); the background is the
    half that holds more of the patches at the border of the frames; the three axes are then those of the foreground alone.
    Source: Oquab et al. 2023 (arXiv:2304.07193), figure 1, where threshold and side are chosen by eye.
    """
    chosen = _fit_foreground(blocks) if foreground else None

    def kept() -> Iterable[NDArray[np.float32]]:
        for block in blocks():
            yield block.reshape(-1, block.shape[-1]) if chosen is None else block[chosen.mask(block)]

    axes = _fit_axes(kept(), count=_NUM_COLOURS)
    scores = np.concatenate([axes.scores(block) for block in kept()])
    low, high = np.percentile(scores, (1, 99), axis=0) if len(scores) else np.zeros((2, _NUM_COLOURS))
    return Basis(axes, low, high, chosen)


def _fit_axes(blocks: Iterable[NDArray[np.float32]], *, count: int) -> Axes:
    """The axes of tokens [..., D]; sums are kept around the first block's mean, so that a large mean costs no digits."""
    total, origin, first, second = 0, np.zeros(0), np.zeros(0), np.zeros((0, 0))
    for block in blocks:
        flat = block.reshape(-1, block.shape[-1]).astype(np.float64)
        if not total:
            width = flat.shape[1]
            origin = flat.mean(0) if len(flat) else np.zeros(width)
            first, second = np.zeros(width), np.zeros((width, width))
        flat = flat - origin
        total, first, second = total + len(flat), first + flat.sum(0), second + flat.T @ flat
    mean = first / max(total, 1)
    axes = np.linalg.eigh(second - total * np.outer(mean, mean))[1][:, : -count - 1 : -1]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0))
    return Axes(origin + mean, axes * signs)


def _fit_foreground(blocks: TokenBlocks) -> Foreground:
    axes = _fit_axes(blocks(), count=1)
    scores = [axes.scores(block)[..., 0] for block in blocks()]  # [T, H, W] each
    threshold = split_in_two(np.concatenate([score.ravel() for score in scores]))
    border = np.concatenate([_border(score).ravel() for score in scores])
    return Foreground(axes, threshold, -1 if (border > threshold).mean() > 0.5 else 1)


def _border(scores: _Floats) -> _Floats:
    """The outermost rows and columns of [T, H, W]."""
    edge = np.ones(scores.shape[1:], np.bool_)
    edge[1:-1, 1:-1] = False
    return scores[:, edge]


def split_in_two(values: _Floats) -> float:
    """The threshold that leaves the most variance between both halves of [N]; equal values have their own as threshold.

    Source: Otsu 1979, A threshold selection method from gray-level histograms; here over the values themselves.
    """
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    if not len(below) or ordered[0] == ordered[-1]:
        return float(ordered[0])
    sums = np.cumsum(ordered - ordered.mean())[:-1]
    cut = int((sums**2 / (below * (len(ordered) - below))).argmax())
    return float(ordered[cut] + ordered[cut + 1]) / 2
