"""Frames through the encoder: a thread reads ahead and a thread writes behind, so that the encoder does not wait for either."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentWriter
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.data.views import View
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.world_model import FrameEncoder, encode_frames
from vjepa2cli.progress import Progress
from vjepa2cli.settings import PrecomputeConfig

_AHEAD, _BEHIND = 2, 2
_Result = TypeVar("_Result")

ReadFrames = Callable[[range], npt.NDArray[np.uint8]]
"""Gives frames of a recording by number."""


@dataclass(frozen=True)
class Piece:
    """Some steps of an episode: its number in the file, the step it begins at, its frames, and whether it is the last one."""

    episode: int
    start: int
    rows: range
    last: bool
    read: ReadFrames
    views: Sequence[View | None]

    def pixels(self, config: PrecomputeConfig, *, pinned: bool) -> list[Tensor]:
        """The frames of every view, float32 [T, 3, crop, crop]; `pinned` memory goes to a GPU while others work."""
        frames = self.read(self.rows)
        views = [frame_transform(frames, crop=config.crop, geometry=config.geometry, view=view) for view in self.views]
        return [pixels.contiguous().pin_memory() if pinned else pixels for pixels in views]


def pieces_of(episode: int, rows: range, *, batch_frames: int, read: ReadFrames, views: Sequence[View | None]) -> Iterator[Piece]:
    """Cut an episode into even parts of at most `batch_frames` frames: the same ones whichever episodes are left to do."""
    count = -(-len(rows) // batch_frames)
    for part in range(count):
        start, stop = len(rows) * part // count, len(rows) * (part + 1) // count
        yield Piece(episode, start, rows[start:stop], part == count - 1, read, views)


@torch.inference_mode()
def encode_pieces(
    encoder: FrameEncoder,
    pieces: Iterator[Piece],
    writer: LatentWriter,
    *,
    config: PrecomputeConfig,
    device: torch.device,
    progress: Progress,
) -> None:
    """Encode every piece and write its latents; raises what reading or writing raised."""
    layer_norm, pinned = not isinstance(encoder, PixelEncoder), device.type == "cuda"
    behind: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writing:
        try:
            for piece, views in _ahead(reader, pieces, lambda piece: piece.pixels(config, pinned=pinned)):
                latents = [
                    encode_frames(encoder, pixels.to(device, non_blocking=True), layer_norm=layer_norm) for pixels in views
                ]
                behind.append(writing.submit(_write, writer, piece, latents))
                while len(behind) > _BEHIND:
                    behind.popleft().result()
                progress.advance(len(piece.rows))
            while behind:
                behind.popleft().result()
        except BaseException:
            reader.shutdown(cancel_futures=True)  # what is encoded is still written
            raise


def _write(writer: LatentWriter, piece: Piece, latents: Sequence[Tensor]) -> None:
    for view, tokens in enumerate(latents):
        writer.write(piece.episode, tokens, start=piece.start, view=view)
    if piece.last:
        writer.finish(piece.episode)


def _ahead(
    pool: ThreadPoolExecutor, pieces: Iterator[Piece], work: Callable[[Piece], _Result]
) -> Iterator[tuple[Piece, _Result]]:
    """Each piece with what `work` makes of it, begun while those before it are used."""
    begun: deque[tuple[Piece, Future[_Result]]] = deque()
    for piece in pieces:
        begun.append((piece, pool.submit(work, piece)))
        if len(begun) > _AHEAD:
            first, future = begun.popleft()
            yield first, future.result()
    while begun:
        first, future = begun.popleft()
        yield first, future.result()
