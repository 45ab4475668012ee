"""Decoded frames of several inputs into batches of windows, through the encoder, and back to the file of each input.

A batch takes windows of whatever inputs have them, all of one length. On a GPU every batch has the same shape, filled up with
blank windows at the end, so that the numbers of a window do not depend on those that happen to go with it; and the outputs of
one batch travel back while the next is computed.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vjepa2cli.artifacts.feature_files import FeatureWriter
from vjepa2cli.encoding.decoding import Ended, Frames, Message, Refused, Unchanged
from vjepa2cli.encoding.features import Floats, Rows, encode_windows
from vjepa2cli.encoding.recipes import Recipe
from vjepa2cli.encoding.sources import Source
from vjepa2cli.encoding.windows import Window, WindowCutter
from vjepa2cli.models.world_model import FrameEncoder


@dataclass(frozen=True)
class Written:
    """One input is written: what its report says of it."""

    number: int
    description: dict[str, Any]


@dataclass(frozen=True)
class BatchDone:
    """So many windows went through the encoder."""

    num_windows: int


Outcome = Written | Unchanged | Refused | BatchDone


class _Input:
    """What is known of an input while it is on its way."""

    def __init__(self, number: int, source: Source, recipe: Recipe, create: Callable[[Source], FeatureWriter]) -> None:
        self.number, self.source = number, source
        self._recipe, self._create = recipe, create
        tubelet = recipe.tubelet_of(still=source.still)
        self.cutter = WindowCutter(num_frames=recipe.num_frames, stride=recipe.stride, tubelet_size=tubelet)
        self.rows = Rows(recipe)
        self.ended: Ended | None = None
        self.refused = False
        self.num_waiting = 0
        self.padding = 0
        self._writer: FeatureWriter | None = None

    def append(self, name: str, rows: Floats) -> None:
        """Write rows, to a file that the first ones make."""
        if self._writer is None:
            self._writer = self._create(self.source)
        self._writer.append(name, rows)

    def discard(self) -> None:
        """Leave nothing behind."""
        self.refused = True
        if self._writer is not None:
            self._writer.discard()
        self._writer = None

    def commit(self, origin: dict[str, Any]) -> dict[str, Any]:
        """Write what is left, and the header: `origin` and the description, which is returned."""
        assert self.ended is not None
        arrays = self.rows.finish(self.append)
        assert self._writer is not None
        shape = self.rows.shape
        grid = self._recipe.grid(self._recipe.num_frames)
        description = {
            "source": self.source.name,
            "shape": list(shape),
            "num_frames": self.cutter.count,
            "padded_frames": self.padding,
            "notes": list(self.ended.notes),
            "last_timestamp": float(arrays["timestamps"][-1]),
            "digest": self.rows.digest,
        }
        arrays |= {"grid": np.array([shape[0], grid.h, grid.w]), "num_frames": np.array(self.cutter.count)}
        header = origin | {"source": self.source.name, "source_digest": self.ended.digest, "description": description}
        writer, self._writer = self._writer, None
        writer.commit(arrays, header)
        return description


_Item = tuple[_Input, Window]


@dataclass(frozen=True)
class _Flight:
    """A batch whose outputs are on their way to host memory until `arrived`."""

    items: Sequence[_Item]
    outputs: Sequence[Tensor]
    arrived: Any


class Pipeline:
    """Takes what is said of the inputs, yields what became of them."""

    def __init__(
        self,
        encoder: FrameEncoder,
        recipe: Recipe,
        *,
        device: torch.device,
        batch_size: int,
        create: Callable[[Source], FeatureWriter],
        origin: dict[str, Any],
    ) -> None:
        self._encoder, self._recipe, self._device, self._batch_size = encoder, recipe, device, batch_size
        self._create, self._origin = create, origin
        self._inputs: dict[int, _Input] = {}
        self._waiting: dict[int, deque[_Item]] = {}
        self._flight: _Flight | None = None

    def run(self, sources: Sequence[Source], messages: Iterable[Message]) -> Generator[Outcome, None, None]:
        """Encode the sources that the messages speak of, by their number."""
        try:
            for message in messages:
                yield from self._take(sources, message)
                while (items := self._next_batch(at_end=False)) is not None:
                    yield from self._launch(items)
            while (items := self._next_batch(at_end=True)) is not None:
                yield from self._launch(items)
            yield from self._land()
        finally:
            for one in self._inputs.values():
                one.discard()

    def _take(self, sources: Sequence[Source], message: Message) -> Iterator[Outcome]:
        number = message.number
        if isinstance(message, Unchanged):
            yield message
            return
        if isinstance(message, Refused):
            if number in self._inputs:
                self._inputs.pop(number).discard()
            yield message
            return
        if number not in self._inputs:
            self._inputs[number] = _Input(number, sources[number], self._recipe, self._create)
        one = self._inputs[number]
        if isinstance(message, Frames):
            for frame in zip(message.times, message.pixels, strict=True):
                self._queue(one, one.cutter.push(frame))
            return
        self._queue(one, one.cutter.finish())
        one.ended = message
        yield from self._settle(one)

    def _queue(self, one: _Input, window: Window | None) -> None:
        if window is not None:
            one.num_waiting += 1
            one.padding = window.padding
            self._waiting.setdefault(len(window.frames), deque()).append((one, window))

    def _next_batch(self, *, at_end: bool) -> list[_Item] | None:
        """A full batch of windows of one length; a part of one at the end, and where more wait than memory should hold."""
        longest = max(self._waiting.values(), key=len, default=deque())
        too_many = sum(map(len, self._waiting.values())) > 2 * self._batch_size
        if len(longest) < self._batch_size and not (longest and (at_end or too_many)):
            return None
        return [longest.popleft() for _ in range(min(len(longest), self._batch_size))]

    def _launch(self, items: list[_Item]) -> Iterator[Outcome]:
        """Put a batch through the encoder, and take in the one before it."""
        items = [(one, window) for one, window in items if not one.refused]
        if not items:
            return
        pixels = torch.from_numpy(np.stack([np.stack([frame for _, frame in window.frames]) for _, window in items]))
        if self._device.type != "cuda":
            outputs = encode_windows(self._encoder, pixels.to(self._device), recipe=self._recipe)
            self._flight = _Flight(items, [rows.cpu() for rows in outputs], None)
            yield from self._land()
            return
        blank = pixels.new_zeros(self._batch_size - len(items), *pixels.shape[1:])
        there = torch.cat([pixels, blank]).pin_memory().to(self._device, non_blocking=True)
        outputs = [rows[: len(items)] for rows in encode_windows(self._encoder, there, recipe=self._recipe)]
        held = [torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True).copy_(rows, non_blocking=True) for rows in outputs]
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        before, self._flight = self._flight, None
        flight = _Flight(items, held, arrived)
        if before is not None:
            self._flight = before
            yield from self._land()
        self._flight = flight

    def _land(self) -> Iterator[Outcome]:
        """Take in the outputs of the batch that is on its way."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        if flight.arrived is not None:
            flight.arrived.synchronize()
        outputs = [rows.numpy() for rows in flight.outputs]
        for index, (one, window) in enumerate(flight.items):
            one.num_waiting -= 1
            if not one.refused:
                one.rows.add(window, [rows[index] for rows in outputs], one.append)
        yield BatchDone(len(flight.items))
        for one in dict.fromkeys(one for one, _ in flight.items):
            if not one.refused:
                yield from self._settle(one)

    def _settle(self, one: _Input) -> Iterator[Outcome]:
        """Write an input of which nothing more will come."""
        if one.ended is not None and not one.num_waiting:
            yield Written(one.number, one.commit(self._origin))
            del self._inputs[one.number]
