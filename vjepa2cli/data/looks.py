"""What a video looks like in a few numbers: whether it is black or frozen, and a signature that copies of it share.

Copies in another codec, container, rate or size differ in at most 4 of a frame's 256 bits on the files that this was tried
on, and different recordings by the same fixed camera in 32 and more.
"""

import base64
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.video import Pixels, resize

_SIDE = 16
_FRAMES = 8
_SECONDS_BETWEEN = 0.12
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Levels of 255. Black video decodes to 0 to 2; noise that a point of the look averages is small.
_BLACK = 16.0
_FROZEN_NEARLY_ALL = 2.0
_FROZEN_ANYWHERE = 8.0
_GRADIENT = 1.5

# Looks that are kept; of a longer video every second one is let go, and again.
_MOST_LOOKS = 4096


@dataclass(frozen=True)
class Looks:
    """Shares of its time that a video is black and frozen, and its signature; see `Signature`."""

    black: float
    frozen: float
    signature: str


class LooksMeter:
    """Takes frames as they come, looks at eight a second or fewer, at 68 by 64 points, and keeps 17 by 16 cells of them."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._cells: list[NDArray[np.uint8]] = []
        self._last = 0.0
        self._pause = _SECONDS_BETWEEN
        self._count = self._black = self._frozen = 0
        self._reference: NDArray[np.float32] | None = None

    def add(self, time: float, pixels: Pixels) -> None:
        """Take a frame, uint8 [Y, X, 3], at `time` seconds."""
        self._last = time
        if self._times and time - self._times[-1] < self._pause:
            return
        points = resize(pixels, (4 * _SIDE, 4 * (_SIDE + 1)), method="bilinear")
        self._times.append(time)
        self._cells.append(resize(points, (_SIDE, _SIDE + 1)))
        self._judge(points @ _LUMA)
        if len(self._times) > _MOST_LOOKS:
            self._times, self._cells, self._pause = self._times[::2], self._cells[::2], 2 * self._pause

    def _judge(self, luma: NDArray[np.float32]) -> None:
        """Count black looks, and those that show what the first look of their stretch showed."""
        self._count += 1
        self._black += int(luma.max() < _BLACK)
        if self._reference is not None:
            change = np.abs(luma - self._reference)
            if change.max() <= _FROZEN_ANYWHERE and (change > _FROZEN_NEARLY_ALL).mean() <= 0.01:
                self._frozen += 1
                return
        self._reference = luma

    def looks(self) -> Looks:
        """What the frames so far look like; a lone frame is not frozen."""
        chosen = self._chosen()
        cells = np.stack([self._cells[index] for index in chosen]).astype(np.float32)
        luma = cells @ _LUMA
        bits = np.packbits(luma[:, :, 1:] - luma[:, :, :-1] > _GRADIENT)
        colours = cells.mean(axis=(1, 2)).round().astype(np.uint8)
        signature = base64.b64encode(bits.tobytes() + colours.tobytes()).decode()
        return Looks(round(self._black / self._count, 3), round(self._frozen / max(1, self._count - 1), 3), signature)

    def _chosen(self) -> NDArray[np.int64]:
        """The looks nearest before eight evenly spread instants."""
        instants = self._times[0] + (self._last - self._times[0]) * (np.arange(_FRAMES) + 0.5) / _FRAMES
        return np.asarray(np.searchsorted(self._times, instants, side="right") - 1)


@dataclass(frozen=True)
class Signature:
    """Of eight instants: the sign of the luma's change from cell to cell, 256 bits, and the mean colour."""

    bits: NDArray[np.uint8]
    colours: NDArray[np.float32]

    @classmethod
    def parse(cls, text: str) -> "Signature":
        """Read what `LooksMeter` gave."""
        content = np.frombuffer(base64.b64decode(text), np.uint8)
        split = _FRAMES * _SIDE * _SIDE // 8
        return cls(content[:split], content[split:].reshape(_FRAMES, 3).astype(np.float32))

    def resembles(self, other: "Signature") -> bool:
        """Whether both show the same: 6 bits a frame and 8 levels of colour may differ."""
        differ = int(np.bitwise_count(self.bits ^ other.bits).sum())
        return differ <= 6 * _FRAMES and float(np.abs(self.colours - other.colours).mean()) <= 8.0

    def bands(self) -> list[tuple[int, bytes]]:
        """Pieces of the bits, of which signatures that resemble each other share at least one; plain pieces tell nothing."""
        pieces = self.bits.reshape(-1, 4)
        found = [(index, piece.tobytes()) for index, piece in enumerate(pieces) if piece.any()]
        return found or [(-1, b"")]
