"""What a video looks like in a few numbers: whether it is black or frozen, and a signature that copies of it share.

A fixed camera shows nearly the same in every recording, so what moves must be the same too before two are copies. Of eight real
clips, re-encoded at other rates, in half the size or at 200 kilobits a second, no cell of a copy was off by more than 8 levels of
255, but for one by a hand-held camera (14); of different takes by one fixed camera some cell was always off by more than 100.
"""

import base64
import zlib
from dataclasses import dataclass
from functools import lru_cache

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

# Of how many moments the luma of each cell is kept, in steps of so many levels.
_MOMENTS = 12
_STEP = 2
# By how many levels a cell of a copy may be off.
_OFF = 10.0
# Bits that differ at most between what looks the same at first, and between copies; levels of colour likewise.
_ALIKE_BITS = 6 * _FRAMES
COPY_BITS = 32 * _FRAMES
_COLOUR = 8.0

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
        cells = self._cells_of(self._chosen(_FRAMES))
        luma = cells @ _LUMA
        bits = np.packbits(luma[:, :, 1:] - luma[:, :, :-1] > _GRADIENT)
        colours = cells.mean(axis=(1, 2)).round().astype(np.uint8)
        signature = base64.b64encode(bits.tobytes() + colours.tobytes() + self._pace() + _packed(self._moves())).decode()
        return Looks(round(self._black / self._count, 3), round(self._frozen / max(1, self._count - 1), 3), signature)

    def _moves(self) -> NDArray[np.uint8]:
        """Of each moment the luma of each cell in steps: in one look, and the least and most in it and its two neighbours.

        Copies may be looked at a little earlier or later, and what is seen there lies between these.
        """
        around = self._chosen(_MOMENTS) + np.arange(-1, 2)[:, None]
        luma = self._cells_of(around.clip(0, len(self._cells) - 1)) @ _LUMA  # [3, moments, 16, 17]
        return np.asarray((np.stack([luma[1], luma.min(axis=0), luma.max(axis=0)]) / _STEP).round().astype(np.uint8))

    def _pace(self) -> bytes:
        """Seconds from look to look, in the mean."""
        return np.float32((self._times[-1] - self._times[0]) / max(1, len(self._times) - 1)).tobytes()

    def _cells_of(self, looks: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([self._cells[look] for look in looks.flat]).reshape(*looks.shape, _SIDE, _SIDE + 1, 3).astype(np.float32)

    def _chosen(self, count: int) -> NDArray[np.int64]:
        """The looks nearest before so many evenly spread instants."""
        instants = self._times[0] + (self._last - self._times[0]) * (np.arange(count) + 0.5) / count
        return np.asarray(np.searchsorted(self._times, instants, side="right") - 1)


def _packed(moves: NDArray[np.uint8]) -> bytes:
    """As changes from moment to moment, since a fixed camera shows few of them."""
    luma, least, most = moves
    changes = np.diff(luma, axis=0, prepend=np.uint8(0))
    return zlib.compress(np.stack([changes, luma - least, most - luma]).tobytes(), 9)


@lru_cache(maxsize=2048)
def _unpacked(content: bytes) -> NDArray[np.float32]:
    """What `_packed` packed; remembered, since recordings by one camera are compared with all others by it."""
    changes, below, above = np.frombuffer(zlib.decompress(content), np.uint8).reshape(3, _MOMENTS, _SIDE, _SIDE + 1)
    luma = np.cumsum(changes, axis=0, dtype=np.uint8)
    return np.stack([luma, luma - below, luma + above]).astype(np.float32)


@dataclass(frozen=True)
class Signature:
    """Of eight instants the sign of the luma's change from cell to cell, 256 bits, and the mean colour; and what moves.

    That is kept as it was packed, and is None in what was ingested before it was looked at. `pace` is seconds between looks.
    """

    bits: NDArray[np.uint8]
    colours: NDArray[np.float32]
    pace: float = 0.0
    moves: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> "Signature":
        """Read what `LooksMeter` gave."""
        content = base64.b64decode(text)
        split = _FRAMES * _SIDE * _SIDE // 8
        end = split + 3 * _FRAMES
        colours = np.frombuffer(content[split:end], np.uint8).reshape(_FRAMES, 3).astype(np.float32)
        bits, pace = np.frombuffer(content[:split], np.uint8), content[end : end + 4]
        return cls(bits, colours, float(np.frombuffer(pace, np.float32)[0]), content[end + 4 :]) if pace else cls(bits, colours)

    def resembles(self, other: "Signature") -> bool:
        """Whether both look the same at first: 6 bits a frame and 8 levels of colour may differ."""
        return self._differing_bits(other) <= _ALIKE_BITS and self._colours_agree(other)

    def is_copy_of(self, other: "Signature") -> bool | None:
        """Whether both show the same, what moves included, up to their brightness; None where that is not known of both."""
        if self.moves is None or other.moves is None:
            return None
        if self._differing_bits(other) > COPY_BITS or not self._colours_agree(other):
            return False
        mine, others = _unpacked(self.moves), _unpacked(other.moves)
        brighter = mine[0].mean() - others[0].mean()
        # Looked at in another rhythm, something quick is seen elsewhere; then it is enough that what was seen nearby overlaps.
        in_step = abs(self.pace - other.pace) <= 0.01 * max(self.pace, other.pace)
        for moments in (slice(2, None, 5), slice(None)):  # a few of them tell most that differ
            found = mine[:, moments] - brighter, others[:, moments]
            for (luma, lowest, highest), (_, least, most) in (found, found[::-1]):
                bottom, top = (luma, luma) if in_step else (lowest, highest)
                if max((bottom - most).max(), (least - top).max()) * _STEP > _OFF:
                    return False
        return True

    def _differing_bits(self, other: "Signature") -> int:
        return int(np.bitwise_count(self.bits ^ other.bits).sum())

    def _colours_agree(self, other: "Signature") -> bool:
        return float(np.abs(self.colours - other.colours).mean()) <= _COLOUR

    def bands(self) -> list[tuple[int, bytes]]:
        """Pieces of the bits, of which signatures that resemble each other share at least one; plain pieces tell nothing."""
        pieces = self.bits.reshape(-1, 4)
        found = [(index, piece.tobytes()) for index, piece in enumerate(pieces) if piece.any()]
        return found or [(-1, b"")]
