"""Inputs into frames at the crop of the encoder: here, or ahead of it in processes that only decode.

This module and all that it imports know no torch, so that such a process starts quickly and stays small.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.cropping import evaluation_crop
from vjepa2cli.encoding.sources import Source
from vjepa2cli.errors import InputError, StaleArtifactError, Vjepa2Error

Pixels = NDArray[np.uint8]

BLOCK_FRAMES = 16


@dataclass(frozen=True)
class Task:
    """One input to decode; `known` is the digest of the content that features of it were made from before, if any were."""

    number: int
    source: Source
    crop: tuple[int, int]
    fps: float | None
    known: str | None = None
    replace: bool = False


@dataclass(frozen=True)
class Frames:
    """The next frames of an input: uint8 [n, *crop, 3], and their seconds."""

    number: int
    pixels: Pixels
    times: Sequence[float]


@dataclass(frozen=True)
class Ended:
    """An input is read to its end."""

    number: int
    digest: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unchanged:
    """The content is that of the features that are there."""

    number: int


@dataclass(frozen=True)
class Refused:
    """An input cannot be read, perhaps only after some frames."""

    number: int
    error: Vjepa2Error


Message = Frames | Ended | Unchanged | Refused


def read(task: Task) -> Iterator[Message]:
    """Everything that there is to say of one input."""
    try:
        yield from _read(task)
    except Vjepa2Error as error:
        yield Refused(task.number, error)
    except OSError as error:
        yield Refused(task.number, InputError(f"{task.source.path}: cannot be read: {error.strerror or error}"))


def _read(task: Task) -> Iterator[Message]:
    digest = task.source.digest()
    if digest == task.known:
        yield Unchanged(task.number)
        return
    if task.known is not None and not task.replace:
        raise StaleArtifactError(
            f"{task.source.path}: features of this name were made from other content; give another --out, or --replace them"
        )
    notes: list[str] = []
    frames = task.source.open(fps=task.fps, notes=notes)
    while block := list(islice(frames, BLOCK_FRAMES)):
        pixels = np.concatenate([evaluation_crop(frame[None], crop=task.crop) for _, frame in block])
        yield Frames(task.number, pixels, [time for time, _ in block])
    yield Ended(task.number, digest, tuple(notes))


def read_here(tasks: Sequence[Task]) -> Generator[Message, None, None]:
    """Read one input after the other in this process."""
    for task in tasks:
        yield from read(task)
