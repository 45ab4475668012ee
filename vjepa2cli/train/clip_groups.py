"""Every kind of clip in a batch with its masks, as functions of (step, rows), made ahead by threads."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.batches import ClipBatches, ClipSource, Pixels, ReadFrames, distant_rates, mix_seed
from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.data.masking import MaskIds
from vjepa2cli.data.prefetch import Prefetcher
from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.losses import Batch, Term
from vjepa2cli.train.networks import clip_grid
from vjepa2cli.train.objective import MaskedClips

_Drawn = list[tuple[range, list[MaskIds]]]


@dataclass(frozen=True)
class _Group:
    """Clips of one kind and their masks."""

    index: int
    clips: ClipBatches
    masks: MaskBatches
    batch_size: int

    @classmethod
    def of(cls, config: PretrainConfig, index: int, sources: list[ClipSource], read: ReadFrames) -> Self:
        """The kind of clip at `index` in a config; `sources` are its videos or images."""
        group, spec = config.groups[index], config.encoder
        clips = ClipBatches(
            sources,
            read,
            shape=group.clip,
            tubelet_size=spec.tubelet_size,
            batch_size=group.batch_size,
            seed=mix_seed(config.seed, index) if index else config.seed,
            released_cuts=config.released_quirks.stretched_clips,
        )
        masks = MaskBatches(
            clip_grid(config, index),
            group.masks,
            batch_size=group.batch_size,
            seed=config.seed,
            group=index,
            kept=config.masking.kept,
            rows_per_draw=group.rows_per_draw,
            correlated=config.released_quirks.correlated_masks,
        )
        return cls(index, clips, masks, config.batch_size)

    def rows(self, rows: range) -> range:
        """The rows of this kind that go with rows of the first kind: the same share of its batch."""
        size = self.masks.batch_size
        if rows.start * size % self.batch_size or rows.stop * size % self.batch_size:
            raise ConfigError(
                f"beside.{self.index - 1}.batch_size: {size} cannot be shared out like batch_size: {self.batch_size}, of which "
                f"{len(rows)} are taken at a time; choose a multiple of {self.batch_size // math.gcd(self.batch_size, len(rows))}"
            )
        return range(rows.start * size // self.batch_size, rows.stop * size // self.batch_size)


@dataclass(frozen=True)
class _Made:
    """Clips of one kind in the memory of the CPU, draws of masks for them, where they are cut from, and what was skipped."""

    group: _Group
    rows: range
    clips: Tensor
    drawn: _Drawn
    ids: dict[int, str]
    skipped: list[str] | None

    def fill(self, step: int, row: int) -> None:
        """Make the clip of one row."""
        self.ids[row] = self.group.clips.fill(self.clips[row - self.rows.start], step, row, skipped=self.skipped)

    def parts(self, device: torch.device) -> list[MaskedClips]:
        """A part for each draw of masks, on the device."""
        clips, first = self.clips.to(device, non_blocking=True), self.rows.start
        return [
            MaskedClips(clips[rows.start - first : rows.stop - first], masks_on(families, device), self.group.index)
            for rows, families in self.drawn
        ]


class ClipGroups:
    """What a batch is made of."""

    def __init__(self, store: VideoStore, config: PretrainConfig, *, device: torch.device, threads: int) -> None:
        """Raises InputError where the store holds nothing of a kind that the config asks for; `remarks` are for the user."""
        self._device, self._skips = device, config.unreadable == "skip"
        self._groups = []
        self.remarks: list[str] = []
        for index, group in enumerate(config.groups):
            found = find_sources(store, "train", group.clip.media)
            key = "clip" if index == 0 else f"beside.{index - 1}.clip"
            if not found:
                kind = "video" if group.clip.media == "any" else group.clip.media
                raise InputError(f"{store.path}: holds no {kind} to train on; ingest some, or change {key}.media")
            if rates := distant_rates(found, group.clip.fps):
                found_at = " to ".join(dict.fromkeys(f"{rate:.3g}" for rate in (rates[0], rates[-1])))
                self.remarks.append(
                    f"{key}.fps: {group.clip.fps:g}: every nth stored frame is taken, which is {found_at} a second "
                    f"in {len(rates)} of {len(found)} videos; ingest with that fps samples by time"
                )
            self._groups.append(_Group.of(config, index, found, reader(store)))
        self._ahead = Prefetcher(self._plan, threads=threads)

    @property
    def first_masks(self) -> MaskBatches:
        """The masks of the first kind of clip."""
        return self._groups[0].masks

    def batch(self, step: int, rows: range, *, terms: tuple[Term, ...]) -> Batch:
        """What goes with these rows of the first kind of clip, of every kind."""
        made = self._ahead.get(step, rows)
        return Batch(
            [part for kind in made for part in kind.parts(self._device)],
            tuple(kind.ids[row] for kind in made for row in kind.rows),
            terms,
            tuple(reason for kind in made for reason in kind.skipped or ()),
        )

    def _plan(self, step: int, rows: range) -> tuple[list[_Made], list[Callable[[], None]]]:
        pinned = self._device.type == "cuda"
        made: list[_Made] = []
        tasks: list[Callable[[], None]] = []
        for group in self._groups:
            own, drawn = group.rows(rows), _Drawn()
            clips = group.clips.empty(len(own), pinned=pinned)
            made.append(_Made(group, own, clips, drawn, {}, [] if self._skips else None))
            tasks.append(partial(_draw, group.masks, step, own, drawn))
            tasks += [partial(made[-1].fill, step, row) for row in own]
        return made, tasks

    def close(self) -> None:
        """End the threads."""
        self._ahead.close()


def _draw(masks: MaskBatches, step: int, rows: range, drawn: _Drawn) -> None:
    drawn += masks.draws(step, rows=rows)


def masks_on(families: list[MaskIds], device: torch.device) -> list[MaskIds]:
    """The ids on another device."""
    return [MaskIds(ids.context_ids.to(device), ids.target_ids.to(device)) for ids in families]


def reader(store: VideoStore) -> ReadFrames:
    """How clips are cut from a store."""

    def read(source: ClipSource, indices: npt.NDArray[np.int64]) -> Pixels:
        return store.frames_at(source.key, indices)

    return read


def find_sources(store: VideoStore, split: str, media: str) -> list[ClipSource]:
    """The videos of a split, the images (videos of one frame), or both."""
    wanted = {"any": (True, False), "image": (True,), "video": (False,)}[media]
    return [
        ClipSource(
            entry.key,
            entry.num_frames,
            entry.fps,
            weight=entry.weight,
            timestamps=store.timestamps(entry.key) if entry.variable_rate else None,
        )
        for entry in store.entries
        if entry.split == split and (entry.num_frames == 1) in wanted
    ]
