"""Windows through the encoder, and their outputs put together to the rows of an input on its time grid."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.data.transforms import normalise
from vjepa2cli.encoding.recipes import Recipe
from vjepa2cli.encoding.windows import Window
from vjepa2cli.files import digest_json
from vjepa2cli.models.world_model import FrameEncoder

Floats = NDArray[np.float32]
Append = Callable[[str, Floats], None]


@torch.inference_mode()
def encode_windows(encoder: FrameEncoder, pixels: Tensor, *, recipe: Recipe) -> list[Tensor]:
    """Windows uint8 [B, F, Y, X, 3], on the encoder's device, to float32 rows of each layer.

    Tokens [B, T, H, W, D]; per-frame their mean over the patches of a time step, [B, T, D]; pooled over all, [B, 1, D].
    """
    grid = recipe.grid(pixels.shape[1])
    outputs = []
    for tokens in _run(encoder, normalise(pixels.movedim(-1, 1)), recipe.layers):
        placed = tokens.reshape(len(tokens), grid.t, grid.h, grid.w, -1)
        if recipe.mode == "pooled":
            placed = placed.mean((1, 2, 3)).unsqueeze(1)
        elif recipe.mode == "per-frame":
            placed = placed.mean((2, 3))
        outputs.append(placed)
    return outputs


def _run(encoder: FrameEncoder, clip: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Clips [B, 3, F, Y, X] to float32 [B, N, D] of each layer, or of the output where none is named."""
    return [tokens.float() for tokens in (encoder.levels(clip, layers) if layers else [encoder(clip)])]


class Rows:
    """The rows of one input in the order of time, given to `append(name, rows)` as soon as no later window can change them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._sums: list[Floats] = []
        self._counts = np.zeros(0, np.float32)
        self._first = 0
        self._digests = [hashlib.sha256() for _ in recipe.names]
        self._timestamps: list[float] = []
        self._spans: list[tuple[float, float]] = []
        self._shape: tuple[int, ...] = ()

    def add(self, window: Window, outputs: Sequence[Floats], append: Append) -> None:
        """Take the outputs of the next window, one [T, ...] a layer."""
        times = np.array([time for time, _ in window.frames])
        if self._recipe.mode == "pooled":
            self._timestamps.append(float(times.mean()))
            self._spans.append((float(times[0]), float(times[-1])))
            self._emit(outputs, append)
            return
        steps = times.reshape(len(outputs[0]), -1).mean(1)
        self._timestamps += steps[window.skip :].tolist()
        if self._recipe.fused:
            self._fuse(window, outputs, append)
        else:
            self._emit([rows[window.skip :] for rows in outputs], append)

    def finish(self, append: Append) -> dict[str, NDArray[Any]]:
        """Put out the last rows; returns the arrays that go beside them."""
        self._put_out(len(self._counts), append)
        arrays: dict[str, NDArray[Any]] = {"timestamps": np.array(self._timestamps)}
        if self._spans:
            arrays["spans"] = np.array(self._spans)
        return arrays

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of each layer."""
        return (len(self._timestamps), *self._shape)

    @property
    def digest(self) -> str:
        """SHA-256 over rows and timestamps."""
        return digest_json([[digest.hexdigest() for digest in self._digests], self._timestamps])

    def _fuse(self, window: Window, outputs: Sequence[Floats], append: Append) -> None:
        """Add to the time steps that earlier windows hold; each is the mean of its windows, all of one weight."""
        start = window.start // self._recipe.tubelet_size
        self._put_out(start - self._first, append)
        known = len(self._counts)
        if not self._sums:
            self._sums = [rows[:0] for rows in outputs]
        for index, rows in enumerate(outputs):
            self._sums[index] = np.concatenate([self._sums[index] + rows[:known], rows[known:]])
        self._counts = np.concatenate([self._counts + 1, np.ones(len(outputs[0]) - known, np.float32)])

    def _put_out(self, count: int, append: Append) -> None:
        """Put out the first `count` time steps that are held."""
        if count <= 0:
            return
        weights = self._counts[:count]
        self._emit([sums[:count] / weights.reshape(-1, *[1] * (sums.ndim - 1)) for sums in self._sums], append)
        self._sums, self._counts = [sums[count:] for sums in self._sums], self._counts[count:]
        self._first += count

    def _emit(self, outputs: Sequence[Floats], append: Append) -> None:
        for name, digest, rows in zip(self._recipe.names, self._digests, outputs, strict=True):
            rows = np.ascontiguousarray(rows)
            self._shape = rows.shape[1:]
            digest.update(rows.data)
            append(name, rows)
