"""From samples to frozen tokens: encoded when asked for, or read from a cache that holds as many as there is room for."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.feature_cache import FeatureCache
from vjepa2cli.data.evaluation_clips import check_tubelets, segment_indices, view_crops
from vjepa2cli.data.prefetch import in_order
from vjepa2cli.data.transforms import augment_clip, normalise
from vjepa2cli.files import digest_json
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.progress import Progress
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing.samples import Pixels, Sample

_ROOM = 0.9
"""Share of the free disk that a cache may take."""
_AHEAD = 2


@dataclass(frozen=True)
class Prepared:
    """The clips of one sample: float32 [views * segments, 3, F, Y, X], and how far ahead they are to look, in seconds."""

    row: int
    clips: Tensor
    seconds_ahead: float = 0.0


Embed = Callable[[Tensor, Sequence[float]], Tensor]
"""From clips [B, 3, F, Y, X], and the seconds that each is to look ahead, to tokens [B, N, D]."""


class Reader(Protocol):
    """Gives the clips of samples by their numbers, in an order of its own that is always the same."""

    @property
    def about(self) -> dict[str, Any]:
        """What the clips depend on besides the samples."""

    def read(self, rows: Sequence[int], copy: int | None, *, threads: int, ahead: int) -> Iterator[Prepared]:
        """Prepare all `rows`, by `threads` and `ahead` of their use; `copy` numbers an augmented copy, None is for evaluation."""


class ClipReader:
    """Cuts the clips of recorded actions: one a segment, in one or several views."""

    def __init__(self, samples: Sequence[Sample], config: ProbeConfig, *, views: int, single_frame: bool) -> None:
        """`single_frame` shows the middle frame of a sample instead of each of its frames."""
        self._samples, self._config, self._views, self._single_frame = samples, config, views, single_frame

    @property
    def about(self) -> dict[str, Any]:
        """See `Reader`."""
        config = self._config
        return {
            "frames": [config.num_frames, config.frame_step, config.segments],
            "views": [self._views, config.crop],
            "single_frame": self._single_frame,
            "random_clips": config.released_protocol.random_clips,
            "seed": config.seed,
        }

    def read(self, rows: Sequence[int], copy: int | None, *, threads: int, ahead: int) -> Iterator[Prepared]:
        """See `Reader`."""
        return in_order((partial(self._prepare, row, copy) for row in rows), threads=threads, ahead=ahead)

    def _prepare(self, row: int, copy: int | None) -> Prepared:
        rng = np.random.default_rng([self._config.seed, row, 0 if copy is None else copy + 1])
        anywhere = copy is not None and not self._config.augment.is_none
        anywhere = anywhere or (copy is None and self._config.released_protocol.random_clips)
        frames = self._samples[row].footage.frames(partial(self._choose, rng=rng if anywhere else None))
        return Prepared(row, cut(frames, self._config, views=self._views, rng=None if copy is None else rng))

    def _choose(self, total: int, *, rng: np.random.Generator | None) -> NDArray[np.int64]:
        config = self._config
        if self._single_frame:
            return np.full((config.segments, config.num_frames), total // 2)
        return segment_indices(
            total, num_frames=config.num_frames, frame_step=config.frame_step, segments=config.segments, rng=rng
        )


def cut(frames: Pixels, config: ProbeConfig, *, views: int, rng: np.random.Generator | None) -> Tensor:
    """Crops of segments uint8 [S, F, Y, X, 3]: float32 [views * S, 3, F, crop, crop], one augmented view where `rng` is given."""
    augment = config.augment
    if rng is not None and not augment.is_none:
        return torch.stack(
            [
                augment_clip(
                    clip,
                    rng,
                    crop=config.crop,
                    scale=augment.scale,
                    aspect_ratio=augment.aspect_ratio,
                    flip=augment.horizontal_flip,
                )
                for clip in frames
            ]
        )
    crops = np.stack([view_crops(clip, crop=config.crop, views=views) for clip in frames], axis=1)  # [V, S, F, c, c, 3]
    return normalise(torch.from_numpy(crops.reshape(-1, *crops.shape[2:])).movedim(-1, 1))


def embedding(encoder: FrameEncoder, config: ProbeConfig) -> Embed:
    """What an encoder makes of clips: its output, or that of several blocks, one level after the other."""
    check_tubelets(config.num_frames, encoder.spec.tubelet_size)

    def embed(clips: Tensor, _: Sequence[float]) -> Tensor:
        if not config.layers:
            tokens: Tensor = encoder(clips)
            return tokens
        return torch.cat(encoder.levels(clips, config.layers), dim=1)

    return embed


class Features:
    """The tokens of the samples of one split: [views, N, D] of each, at evaluation or of one of its training copies.

    `waited` counts the seconds in which the encoder had nothing to do but wait for clips.
    """

    def __init__(
        self,
        reader: Reader,
        embed: Embed,
        *,
        count: int,
        copies: int | None,
        views: int,
        device: torch.device,
        batch: int,
        threads: int,
        autocast: Callable[[], Any],
    ) -> None:
        """`copies` of each sample for training, or None for evaluation clips of `views` views."""
        self.reader, self.count, self.copies, self.views = reader, count, copies, views
        self._embed, self._device, self._batch, self._threads, self._autocast = embed, device, batch, threads, autocast
        self.cache: FeatureCache | None = None
        self.waited = 0.0

    @property
    def num_rows(self) -> int:
        """Samples, times their copies."""
        return self.count * (self.copies or 1)

    def place(self, row: int) -> tuple[int, int | None]:
        """Sample and copy of a row."""
        return (row, None) if self.copies is None else (row % self.count, row // self.count)

    @torch.inference_mode()
    def encode(self, rows: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Encode rows, reading ahead; yields (row, tokens [views, N, D]) as they are done, on the device."""
        for copy, members in _by_copy(self.place(row) for row in rows):
            prepared = self.reader.read(members, copy, threads=self._threads, ahead=_AHEAD * self._batch)
            base = 0 if copy is None else copy * self.count
            while batch := self._wait_for(prepared):
                clips = torch.cat([one.clips for one in batch]).to(self._device, non_blocking=True)
                ahead = [one.seconds_ahead for one in batch for _ in range(len(one.clips))]
                with self._autocast():
                    tokens = self._embed(clips, ahead)
                for one, own in zip(batch, tokens.chunk(len(batch)), strict=True):
                    # [views * segments, N, D]: a probe sees the tokens of all segments of a view together.
                    yield base + one.row, own.reshape(self.views, -1, own.shape[-1])

    def _wait_for(self, prepared: Iterator[Prepared]) -> list[Prepared]:
        began = time.monotonic()
        batch = list(islice(prepared, self._batch))
        self.waited += time.monotonic() - began
        return batch

    def get(self, rows: Sequence[int]) -> Tensor:
        """Tokens [len(rows), views * N, D] of rows, float16 on the CPU from the cache, else encoded."""
        kept = 0 if self.cache is None else self.cache.num_kept
        held = {row for row in rows if row < kept}
        read = [row for row in dict.fromkeys(rows) if row in held]
        found: dict[int, Tensor] = {}
        if self.cache is not None and read:
            found = dict(zip(read, torch.from_numpy(self.cache.read(read)), strict=True))
        fresh = [row for row in dict.fromkeys(rows) if row not in held]
        found |= {row: tokens.flatten(0, 1).half().cpu() for row, tokens in self.encode(fresh)}
        return torch.stack([found[row] for row in rows])


def _by_copy(places: Iterable[tuple[int, int | None]]) -> list[tuple[int | None, list[int]]]:
    groups: dict[int | None, list[int]] = {}
    for sample, copy in places:
        groups.setdefault(copy, []).append(sample)
    return list(groups.items())


@dataclass(frozen=True)
class Estimate:
    """What the tokens of a split take, and how many of them there is room for."""

    rows: int
    row_bytes: int
    kept: int

    @property
    def num_bytes(self) -> int:
        """All of them."""
        return self.rows * self.row_bytes


def estimate(features: Features, shape: tuple[int, int], *, folder: Path, max_bytes: int | None) -> Estimate:
    """Of tokens [N, D] = `shape` a row and view, how much is wanted and how much fits: the free disk, or `max_bytes`."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    room = int(shutil.disk_usage(place).free * _ROOM)
    room = room if max_bytes is None else min(room, max_bytes)
    row_bytes = features.views * shape[0] * shape[1] * 2
    return Estimate(features.num_rows, row_bytes, min(features.num_rows, room // row_bytes))


def fill(
    features: Features, folder: Path, header: dict[str, Any], *, shape: tuple[int, int], kept: int, progress: Progress, name: str
) -> None:
    """Encode what the cache in `folder` lacks; raises ArtifactError where it holds features of something else."""
    about = header | {"settings": digest_json(features.reader.about | {"copies": features.copies})}
    size = (features.views * shape[0], shape[1])
    cache = FeatureCache.open(folder, about, count=features.num_rows, kept=kept, shape=size)
    missing = cache.missing()
    progress.start(f"features of {name}", total=features.num_rows, done=features.num_rows - len(missing))
    for row, tokens in features.encode(missing):
        cache.write(row, tokens.flatten(0, 1).half().cpu().numpy())
        progress.advance()
    progress.finish()
    features.cache = cache


def token_shape(features: Features) -> tuple[int, int]:
    """Tokens [N, D] of one view, told by encoding the first row."""
    _, tokens = next(iter(features.encode([0])))
    return int(tokens.shape[1]), int(tokens.shape[2])


def compute(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context that evaluation runs in: fp32 for none, bf16, or fp16 as in the released video evaluations."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
