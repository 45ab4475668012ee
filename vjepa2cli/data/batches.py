"""Batches as a function of (seed, step): which clips, where they start, and how they are augmented."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vjepa2cli.data.released_cuts import released_indices
from vjepa2cli.data.transforms import augment_clip, frame_transform
from vjepa2cli.errors import ArtifactError, InputError

Pixels = npt.NDArray[np.uint8]
_MAX_SKIPPED = 100
_CACHE_BYTES = 2 << 30


class ClipShape(Protocol):
    """The numbers that say how a clip is cut; `settings.ClipConfig` has them."""

    @property
    def num_frames(self) -> int:
        """Frames in a clip."""

    @property
    def fps(self) -> float | None:
        """Frames a second to sample at, or None for every stored frame."""

    @property
    def crop(self) -> int:
        """Side of the square crop in pixels."""

    @property
    def scale(self) -> tuple[float, float]:
        """Share of the frame's area that a random crop covers."""

    @property
    def aspect_ratio(self) -> tuple[float, float]:
        """Width over height of a random crop."""

    @property
    def horizontal_flip(self) -> float:
        """Probability of a mirror image."""

    @property
    def static_fraction(self) -> float:
        """Share of the clips whose tubelets hold one frame twice, as world models encode single frames."""


@dataclass(frozen=True)
class ClipSource:
    """One stored video as batches see it.

    `weight` is its share of the draws beside those of the others, or None where each video counts by the clips that it holds.
    `timestamps`, float64 [F] in seconds, are given where the frames do not follow each other at `fps`.
    """

    key: str
    num_frames: int
    fps: float
    weight: float | None = None
    timestamps: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)


ReadFrames = Callable[[ClipSource, npt.NDArray[np.int64]], Pixels]
"""Gives frames of a video by number, in that order and as often, uint8 [len(indices), Y, X, 3]."""


class FrameCache:
    """Keeps recently used arrays within a fixed number of bytes, so that small sets are decoded once."""

    def __init__(self, *, capacity: int = _CACHE_BYTES) -> None:
        """Hold at most `capacity` bytes."""
        self._capacity, self._held = capacity, 0
        self._arrays: OrderedDict[Any, npt.NDArray[Any]] = OrderedDict()

    def get(self, key: Any, read: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The array of `key`, read if it is not held."""
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = read()
        if array.nbytes <= self._capacity:
            self._arrays[key] = array
            self._held += array.nbytes
        while self._held > self._capacity:
            self._held -= self._arrays.popitem(last=False)[1].nbytes
        return array


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def stride_of(source_fps: float, fps: float | None) -> int:
    """Stored frames from one sampled frame to the next, at least one."""
    return 1 if fps is None else max(1, round(source_fps / fps))


def distant_rates(sources: Sequence[ClipSource], fps: float | None) -> list[float]:
    """Frames a second at which videos of one rate are really sampled, of each that is more than a tenth off, in order."""
    if fps is None:
        return []
    rates = [it.fps / stride_of(it.fps, fps) for it in sources if it.timestamps is None and it.num_frames > 1]
    return sorted(rate for rate in rates if abs(rate / fps - 1) > 0.1)


def clip_indices(source: ClipSource, start: int, *, num_frames: int, fps: float | None) -> npt.NDArray[np.int64]:
    """Numbers of the stored frames of a clip that begins at frame `start`; beyond the end the last frame repeats.

    Every nth frame where the video has one rate; otherwise the frame that is shown at each instant, `fps` to the second.
    """
    steps = np.arange(num_frames)
    if source.timestamps is None or fps is None:
        return np.minimum(start + stride_of(source.fps, fps) * steps, source.num_frames - 1)
    # A thousandth of a second of slack, since containers round timestamps to that.
    instants = source.timestamps[start] + steps / fps + 1e-3
    return np.asarray(np.searchsorted(source.timestamps, instants, side="right") - 1)


def _num_starts(source: ClipSource, *, num_frames: int, fps: float | None) -> int:
    """At how many frames a clip may begin that does not run beyond the end; at least one."""
    if source.timestamps is None or fps is None:
        return max(1, source.num_frames - (num_frames - 1) * stride_of(source.fps, fps))
    latest = source.timestamps[-1] - (num_frames - 1) / fps + 1e-3
    return max(1, int(np.searchsorted(source.timestamps, latest, side="right")))


class ClipBatches:
    """Training clips drawn from stored videos, by their weights, or each video in proportion to the clips it holds."""

    def __init__(
        self,
        sources: Sequence[ClipSource],
        read: ReadFrames,
        *,
        shape: ClipShape,
        tubelet_size: int,
        batch_size: int,
        seed: int,
        released_cuts: bool = False,
    ) -> None:
        """`released_cuts` takes the frames that the released training takes. Raises InputError where there is no video."""
        if not sources:
            raise InputError("the store holds no video to train on; ingest more, or lower val_fraction")
        self._sources, self._read, self._shape = list(sources), read, shape
        self._tubelet_size, self._batch_size, self._seed = tubelet_size, batch_size, seed
        self._released_cuts = released_cuts
        self._starts = [_num_starts(source, num_frames=shape.num_frames, fps=shape.fps) for source in self._sources]
        weighted = [source.weight for source in self._sources if source.weight is not None]
        assert len(weighted) in (0, len(self._sources)), "either every video of a store has a weight or none"
        shares = np.array(weighted or self._starts, dtype=np.float64)
        self._cumulative = np.cumsum(shares / shares.sum())
        self._cumulative /= self._cumulative[-1]

    def batch(self, step: int, *, rows: range) -> Tensor:
        """Rows of the global batch of `step`: float32 [len(rows), 3, F, crop, crop], normalised."""
        clips = self.empty(len(rows))
        for clip, row in zip(clips, rows, strict=True):
            self.fill(clip, step, row)
        return clips

    def empty(self, count: int, *, pinned: bool = False) -> Tensor:
        """Room for clips; `pinned` memory goes to a GPU while others work."""
        shape = self._shape
        return torch.empty(count, 3, shape.num_frames, shape.crop, shape.crop, pin_memory=pinned)

    def ids(self, step: int, *, rows: range) -> tuple[str, ...]:
        """Where the rows of a batch are cut from: `video first:last:stride`, in stored frames; where it varies, the largest."""
        return tuple(self._draw(step, row)[0].describe() for row in rows)

    def _draw(self, step: int, row: int) -> tuple["_Cut", np.random.Generator]:
        """Where a row is cut from, and the generator that goes on to augment it."""
        rng = np.random.default_rng([self._seed, step, row])
        return self._draw_from(rng), rng

    def _draw_from(self, rng: np.random.Generator) -> "_Cut":
        chosen = int(self._cumulative.searchsorted(rng.random(), side="right"))
        source, num_frames, fps = self._sources[chosen], self._shape.num_frames, self._shape.fps
        if self._released_cuts and fps is not None:
            return _Cut(source, released_indices(source.num_frames, source.fps, rng, num_frames=num_frames, fps=fps))
        start = int(rng.integers(self._starts[chosen]))
        return _Cut(source, clip_indices(source, start, num_frames=num_frames, fps=fps))

    def fill(self, clip: Tensor, step: int, row: int, *, skipped: list[str] | None = None) -> str:
        """Write one row of the batch of `step` into `clip`, and return where it is cut from; threads may fill several.

        Where frames cannot be read another clip is drawn and the reason added to `skipped`; without that, raises ArtifactError.
        """
        cut, rng = self._draw(step, row)
        frames = None
        while frames is None:
            try:
                frames = self._frames(cut, row)
            except ArtifactError as error:
                if skipped is None or len(skipped) >= _MAX_SKIPPED:
                    raise
                skipped.append(str(error))
                cut = self._draw_from(rng)
        augmented = augment_clip(
            frames,
            rng,
            crop=self._shape.crop,
            scale=self._shape.scale,
            aspect_ratio=self._shape.aspect_ratio,
            flip=self._shape.horizontal_flip,
        )
        clip.copy_(augmented)
        return cut.describe()

    def _frames(self, cut: "_Cut", row: int) -> Pixels:
        indices = cut.indices
        if row < round(self._shape.static_fraction * self._batch_size):
            indices = np.repeat(indices[:: self._tubelet_size], self._tubelet_size)[: len(indices)]
        return self._read(cut.source, indices)


@dataclass(frozen=True)
class _Cut:
    source: ClipSource
    indices: npt.NDArray[np.int64]

    def describe(self) -> str:
        stride = int(np.diff(self.indices).max(initial=1))
        return f"{self.source.key} {self.indices[0]}:{self.indices[-1]}:{stride}"


def fixed_clips(
    sources: Sequence[ClipSource], read: ReadFrames, *, shape: ClipShape, count: int, skipped: list[str] | None = None
) -> Tensor:
    """The middles of `count` evenly spread videos, always the same: float32 [count, 3, F, crop, crop].

    In place of a video that cannot be read comes the next that can, and the reason is added to `skipped`; without that, and where
    there is no other, raises ArtifactError.
    """
    unreadable: dict[str, ArtifactError] = {}
    clips = []
    for first in (index * len(sources) // count for index in range(count)):
        for source in (*sources[first:], *sources[:first]):
            if source.key in unreadable:
                continue
            try:
                clips.append(_middle(source, read, shape))
                break
            except ArtifactError as error:
                unreadable[source.key] = error
                if skipped is None or len(unreadable) == len(sources):
                    raise
                skipped.append(str(error))
    return torch.stack(clips)


def _middle(source: ClipSource, read: ReadFrames, shape: ClipShape) -> Tensor:
    start = (_num_starts(source, num_frames=shape.num_frames, fps=shape.fps) - 1) // 2
    indices = clip_indices(source, start, num_frames=shape.num_frames, fps=shape.fps)
    return torch.as_tensor(frame_transform(read(source, indices), crop=shape.crop)).transpose(0, 1)
