"""What is to be classified: labelled windows of a video store, or the videos and images of a labelled set, in two splits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore, Window
from vjepa2cli.data.batches import mix_seed
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES
from vjepa2cli.data.video import open_video, read_image
from vjepa2cli.errors import InputError
from vjepa2cli.files import digest_file, digest_json
from vjepa2cli.recordings.labelled import LabelledClip, LabelledSet, class_order
from vjepa2cli.recordings.spans import Span
from vjepa2cli.settings import ProbeConfig

Pixels = NDArray[np.uint8]
Choose = Callable[[int], NDArray[np.int64]]
"""Gives numbers of frames [...] for how many there are."""


class Footage(Protocol):
    """Where the frames of a sample come from."""

    def frames(self, choose: Choose) -> Pixels:
        """The frames that `choose` wants of all there are: uint8 [..., Y, X, 3]."""


@dataclass(frozen=True)
class Sample:
    """One thing to classify: `targets` are class numbers, one a question; a `group` never spans training and selection."""

    name: str
    targets: tuple[int, ...]
    group: str
    footage: Footage


@dataclass(frozen=True)
class Question:
    """What a head answers: `name`, and its classes in the order of their numbers."""

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ProbeData:
    """Samples that train the heads, that choose one of them, and that it is judged by; none of the first two for judging alone.

    `digest` is that of what they were read from; `dropped` says how many of what were left out.
    """

    questions: tuple[Question, ...]
    train: tuple[Sample, ...]
    selection: tuple[Sample, ...]
    val: tuple[Sample, ...]
    digest: str
    dropped: tuple[str, ...] = ()

    @property
    def label_digest(self) -> str:
        """SHA-256 of the classes of every question, in order."""
        return label_digest(self.questions)


def label_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the classes of every question, in order: what the numbers of a probe's answers mean."""
    return digest_json([[question.name, list(question.classes)] for question in questions])


# --- where frames come from ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredWindow:
    """A labelled window of a video store."""

    store: VideoStore
    entry: VideoEntry
    window: Window

    def frames(self, choose: Choose) -> Pixels:
        """See `Footage`."""
        total = min(self.window.num_frames, self.entry.num_frames - self.window.start)
        numbers = choose(total)
        pixels = self.store.frames_at(self.entry.key, self.window.start + numbers.ravel())
        return pixels.reshape(*numbers.shape, *pixels.shape[1:])


@dataclass(frozen=True)
class FileStretch:
    """A stretch of a video file, an image, or a folder of numbered frames; resized while decoding to `short_side`."""

    path: Path
    span: Span
    short_side: int | None

    def frames(self, choose: Choose) -> Pixels:
        """See `Footage`."""
        if self.path.is_dir():
            return _from_folder(self.path, choose)
        if self.path.suffix.lower() in IMAGE_SUFFIXES:
            numbers = choose(1)
            return np.broadcast_to(read_image(self.path), (*numbers.shape, *read_image(self.path).shape))
        with open_video(self.path) as video:
            rate = video.info.fps
            return video.picked(lambda total: self._within(total, rate, choose), short_side=self.short_side)

    def _within(self, total: int, rate: float, choose: Choose) -> NDArray[np.int64]:
        """Numbers in the file, of the stretch alone."""
        scale = rate if self.span.unit == "seconds" else 1.0
        first = min(round(self.span.start * scale), total - 1)
        stop = total if self.span.stop is None else min(round(self.span.stop * scale), total)
        return first + choose(max(1, stop - first))


def _from_folder(folder: Path, choose: Choose) -> Pixels:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{folder}: holds no images; a clip is a video file, an image, or a folder of numbered frames")
    numbers = choose(len(files))
    held = {number: read_image(files[number]) for number in {*numbers.ravel().tolist()}}
    pixels = np.stack([held[number] for number in numbers.ravel().tolist()])
    return pixels.reshape(*numbers.shape, *pixels.shape[1:])


# --- from what the user names to samples -----------------------------------------------------------------------------


def from_store(videos: VideoStore, config: ProbeConfig) -> ProbeData:
    """The labelled windows of a store; raises InputError where they cannot be probed."""
    if not videos.labels:
        raise InputError(
            f"{videos.path}: no window is labelled; ingest with --labels CSV, a table of video, start, end and label"
        )
    classes = class_order(videos.labels)
    found: dict[str, list[Sample]] = {"train": [], "val": []}
    for entry in videos.entries:
        for window in entry.windows:
            name = f"{entry.source} {window.start}:{window.start + window.num_frames - 1}"
            target = (classes.index(window.label),)
            found[entry.split].append(Sample(name, target, entry.episode, StoredWindow(videos, entry, window)))
    hint = "ingest with a val_fraction above 0 and below 1"
    return checked(found, (Question("class", classes),), videos.digest, config, where=str(videos.path), hint=hint)


def from_labelled_set(
    labelled: LabelledSet,
    tables: Sequence[Path],
    config: ProbeConfig,
    *,
    judged_only: bool = False,
    stated: tuple[Question, ...] | None = None,
) -> ProbeData:
    """The clips of a labelled set; with `judged_only` its validation split alone.

    Where a probe has `stated` its classes and the clips show no others, its numbers count: a split need not show every class.
    """
    classes = labelled.classes
    if stated is not None and {*classes} <= {*stated[-1].classes}:
        classes = stated[-1].classes
    number = {name: index for index, name in enumerate(classes)}
    # Half as large again leaves room for random crops; frames are never enlarged here.
    short_side = None if not config.augment.is_none else config.crop * 256 // 224
    short_side = config.crop if config.views > 1 and config.augment.is_none else short_side

    def samples(clips: Sequence[LabelledClip]) -> list[Sample]:
        return [
            Sample(clip.name, (number[clip.label],), clip.group, FileStretch(clip.path, clip.span, short_side)) for clip in clips
        ]

    found = {"train": [] if judged_only else samples(labelled.train), "val": samples(labelled.val)}
    digest = digest_json([digest_file(table) if table.is_file() else table.name for table in tables])
    where = ", ".join(map(str, tables))
    hint = "give the tables of training and validation, in this order"
    data = checked(found, (Question("class", classes),), digest, config, where=where, hint=hint, judged_only=judged_only)
    lost = (f"{labelled.missing} files that are not there",) if labelled.missing else ()
    return replace(data, dropped=(*lost, *data.dropped))


def checked(
    found: dict[str, list[Sample]],
    questions: tuple[Question, ...],
    digest: str,
    config: ProbeConfig,
    *,
    where: str,
    hint: str,
    judged_only: bool = False,
) -> ProbeData:
    """Refuse what cannot be probed, before anything long begins, and set aside the samples that choose the head."""
    shown = {sample.targets[-1] for split in found.values() for sample in split}
    if len(shown) == 1 and not judged_only:
        label = questions[-1].classes[min(shown)]
        raise InputError(f"{where}: every clip has the label {label!r}; probing needs at least two classes")
    for split, name in (("train", "training"), ("val", "validation")):
        if not found[split] and not (judged_only and split == "train"):
            raise InputError(f"{where}: the {name} split is empty; {hint}")
    dropped = []
    if not judged_only:
        dropped = _without_unseen(found, questions, config, where=where)
        _require_enough(found["train"], questions, config, where=where)
        found["train"] = labelled(found["train"], config)
    train, selection = ([], []) if judged_only else split_by_group(found["train"], config, keep_classes=len(questions) == 1)
    return ProbeData(questions, tuple(train), tuple(selection), tuple(found["val"]), digest, tuple(dropped))


def _without_unseen(
    found: dict[str, list[Sample]], questions: tuple[Question, ...], config: ProbeConfig, *, where: str
) -> list[str]:
    """Drop, or refuse, what only the validation split shows; the head could never name it."""
    seen = {sample.targets for sample in found["train"]}
    # Where there are several questions the last one, of all of them together, decides.
    unseen = [sample for sample in found["val"] if sample.targets[-1] not in {targets[-1] for targets in seen}]
    if not unseen:
        return []
    names = sorted({questions[-1].classes[sample.targets[-1]] for sample in unseen})
    if config.unseen == "refuse":
        raise InputError(
            f"{where}: {len(unseen)} validation clips are of {len(names)} classes that no training clip shows, such as "
            f"{names[0]!r}; move some of them to training, or set unseen=drop to leave them out"
        )
    found["val"] = [sample for sample in found["val"] if sample not in unseen]
    if not found["val"]:
        raise InputError(f"{where}: no class of the validation clips is shown in training; the splits do not belong together")
    return [f"{len(unseen)} validation clips of {len(names)} classes that training does not show"]


def _require_enough(train: Sequence[Sample], questions: Sequence[Question], config: ProbeConfig, *, where: str) -> None:
    """Refuse classes of too few clips, except of anticipated actions, of which most are rare."""
    counts = Counter(sample.targets[0] for sample in train)
    few = [questions[0].classes[target] for target, count in sorted(counts.items()) if count < config.min_class_clips]
    if few and len(questions) == 1:
        raise InputError(
            f"{where}: {len(few)} classes have fewer than {config.min_class_clips} training clips, such as {few[0]!r}; "
            "add clips, drop the class, or set min_class_clips=1"
        )
    if len({sample.group for sample in train}) < 2:
        raise InputError(
            f"{where}: all training clips are of one video, {train[0].group}; a part of the videos must choose the head, "
            "so give at least two"
        )


def labelled(train: list[Sample], config: ProbeConfig) -> list[Sample]:
    """The training samples whose labels may be seen: all, or `shots` of each class, a second of a video only after all others."""
    if config.shots is None:
        return train
    order = np.random.default_rng([config.seed, mix_seed(len(train), config.shots)]).permutation(len(train)).tolist()
    seen: Counter[tuple[int, str]] = Counter()
    of_class: dict[int, list[tuple[int, int]]] = {}  # how many of the same video came before, and the place in `train`
    for place in order:
        target, group = train[place].targets[-1], train[place].group
        of_class.setdefault(target, []).append((seen[target, group], place))
        seen[target, group] += 1
    chosen = {place for turns in of_class.values() for _, place in sorted(turns, key=lambda turn: turn[0])[: config.shots]}
    return [train[place] for place in sorted(chosen)]


def split_by_group(train: Sequence[Sample], config: ProbeConfig, *, keep_classes: bool) -> tuple[list[Sample], list[Sample]]:
    """Training samples without, and only with, the groups that choose the head; with `keep_classes` none loses all it has."""
    groups = sorted({sample.group for sample in train})
    order = np.random.default_rng([config.seed, mix_seed(len(groups))]).permutation(len(groups))
    wanted = max(1, round(config.selection_fraction * len(groups)))
    left = Counter(sample.targets for sample in train)
    of_group: dict[str, Counter[tuple[int, ...]]] = {group: Counter() for group in groups}
    for sample in train:
        of_group[sample.group][sample.targets] += 1
    chosen: set[str] = set()
    for place in order.tolist():
        counts = of_group[groups[place]]
        if len(chosen) < wanted and (not keep_classes or all(left[targets] > count for targets, count in counts.items())):
            chosen.add(groups[place])
            left -= counts
    if not chosen:  # every group is all that a class has; the first drawn chooses the head all the same
        chosen.add(groups[int(order[0])])
    return [sample for sample in train if sample.group not in chosen], [sample for sample in train if sample.group in chosen]
