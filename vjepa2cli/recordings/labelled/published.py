"""From the annotation files of published sets to labelled clips in two splits, under the class numbers of the set."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.labelled.places import Places
from vjepa2cli.recordings.manifests import read_manifest
from vjepa2cli.recordings.spans import WHOLE, Span

_TRAIN, _VAL = "train", "val"
_SPLITS = {"train": _TRAIN, "training": _TRAIN, "val": _VAL, "validate": _VAL, "validation": _VAL, "test": _VAL, "testing": _VAL}
_BRACKETS = re.compile(r"[\[\]]")
_MOST_NUMBERED = 10_000
_JESTER_LINE = re.compile(r"(\d+);(\S.*)")


@dataclass(frozen=True)
class LabelledClip:
    """A stretch `span` of the video, image or folder of frames at `path`, and its class; a `group` never spans two splits."""

    name: str
    path: Path
    label: str
    span: Span = WHOLE
    group: str = ""


@dataclass(frozen=True)
class LabelledSet:
    """Clips of both splits, the classes in the order of their numbers, and how many listed files are not there."""

    train: tuple[LabelledClip, ...]
    val: tuple[LabelledClip, ...]
    classes: tuple[str, ...]
    missing: int = 0


@dataclass(frozen=True)
class _Item:
    """One annotation: the names that its file may have, its class, and its split where the table tells it."""

    names: tuple[str, ...]
    label: str
    split: str | None = None
    span: Span = WHOLE
    group: str = ""


def read_labelled(
    tables: Sequence[Path], *, root: Path | None = None, classes: Path | None = None, drop_missing: bool = False
) -> LabelledSet:
    """Read the training table and the validation table, or one that tells the splits itself; folders of a class each do too.

    `root` is where the files lie, `classes` the published list of classes, whose order is that of the class numbers. A lone table
    that tells no splits is for evaluation. Raises InputError where a table is in no known format, has no labels, or names files
    that are not there.
    """
    if not 1 <= len(tables) <= 2:
        raise InputError(f"{len(tables)} tables of clips were given; give that of training and that of validation, or one")
    split_of_table = (_VAL,) if len(tables) == 1 else (_TRAIN, _VAL)
    taken: dict[str, list[LabelledClip]] = {_TRAIN: [], _VAL: []}
    missing = 0
    for table, split in zip(tables, split_of_table, strict=True):
        places = Places(table, root)
        for item in _items(table):
            path = places.of(*item.names)
            if path is not None:
                clip = LabelledClip(item.names[0], path, item.label, item.span, item.group or item.names[0])
                taken[item.split or split].append(clip)
        places.require(drop=drop_missing)
        missing += len(places.missing)
    labels = {clip.label for clips in taken.values() for clip in clips}
    named = class_order(labels) if classes is None else _read_classes(classes)
    unknown = sorted(labels - set(named))
    if unknown:
        raise InputError(f"{classes}: does not list the class {unknown[0]!r} of {tables[0]}; give the list of this set")
    return LabelledSet(tuple(taken[_TRAIN]), tuple(taken[_VAL]), named, missing)


def _items(table: Path) -> Iterator[_Item]:
    if table.is_dir():
        return _class_folders(table)
    if not table.is_file():
        raise InputError(f"{table}: no such file or folder; give a table of labelled clips, or a folder with one folder a class")
    if table.suffix.lower() == ".json":
        return _from_json(table)
    text = table.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and all(_JESTER_LINE.fullmatch(line) for line in lines):
        return _jester(lines)
    if lines and "youtube_id" in lines[0]:
        return _kinetics(table, text)
    return _manifest(table)


def _manifest(table: Path) -> Iterator[_Item]:
    """A table of ours, or the released `path label` list."""
    for listed in read_manifest(table, need_labels=True):
        for row in listed.rows:
            assert row.label is not None
            yield _Item((listed.name,), row.label, span=row.span, group=listed.episode or listed.name)


def _class_folders(folder: Path) -> Iterator[_Item]:
    """A folder a class, as ImageNet is laid out for training."""
    named = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not named:
        raise InputError(f"{folder}: holds no folders; a folder of labelled clips has one folder a class, named after it")
    for path in named:
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        yield from (_Item((str(file.resolve()),), path.name) for file in files)


def _jester(lines: Sequence[str]) -> Iterator[_Item]:
    for line in lines:
        found = _JESTER_LINE.fullmatch(line)
        assert found is not None
        yield _Item((found[1],), found[2])


def _kinetics(table: Path, text: str) -> Iterator[_Item]:
    """Videos are called by their YouTube id, with or without the seconds, in one folder or in one a class."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "label" not in (reader.fieldnames or ()):
        raise InputError(f"{table}: has no column 'label', as the list of the test set; give that of training or validation")
    for row in reader:
        video, label = row["youtube_id"], row["label"].strip()
        names = [video]
        if row.get("time_start") and row.get("time_end"):
            names.insert(0, f"{video}_{int(row['time_start']):06d}_{int(row['time_end']):06d}")
        folders = ("", f"{label}/", f"{label.replace(' ', '_')}/")
        split = _SPLITS.get((row.get("split") or "").strip().lower())
        yield _Item(tuple(f"{folder}{name}" for name in names for folder in folders), label, split, group=video)


def _from_json(table: Path) -> Iterator[_Item]:
    try:
        tree = json.loads(table.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{table}: not JSON ({error}); download it again") from None
    if isinstance(tree, dict) and isinstance(tree.get("database"), dict):
        return _coin(tree["database"])
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        if "vid_name" in tree[0]:
            return (_Item((str(item["vid_name"]),), str(item["label"])) for item in tree)
        if "template" in tree[0]:
            return (_Item((str(item["id"]),), _BRACKETS.sub("", str(item["template"]))) for item in tree)
        if "id" in tree[0]:
            raise InputError(
                f"{table}: its entries have no 'template', as those of the test set; give the list of training or validation"
            )
    raise InputError(
        f"{table}: is in no format that is known here: a list of Something-Something v2 or Diving48, or the database of COIN; "
        "make a CSV with the columns video and label of it"
    )


def _coin(database: Mapping[str, Any]) -> Iterator[_Item]:
    for video, about in database.items():
        names = (video, f"{about['recipe_type']}/{video}", f"{about['class']}/{video}")
        yield _Item(names, str(about["class"]), _SPLITS[str(about["subset"]).lower()])


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Classes by their numbers: labels that are whole numbers are these themselves, also where some are missing; else by name."""
    labels = {*labels}
    if labels and all(label.isdecimal() for label in labels) and (last := max(map(int, labels))) < _MOST_NUMBERED:
        return tuple(map(str, range(last + 1)))
    return tuple(sorted(labels))


def _read_classes(path: Path) -> tuple[str, ...]:
    """The list of classes of a set: a JSON of class to number, or a line a class."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the published list of classes")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        tree = json.loads(text)
        numbered = {name: int(number) for name, number in tree.items()} if isinstance(tree, dict) else {}
        if isinstance(tree, list):
            numbered = {str(name): number for number, name in enumerate(tree)}
        if sorted(numbered.values()) != list(range(len(numbered))):
            raise InputError(f"{path}: is no list of classes; it must give every class a number, from 0 without gaps")
        return tuple(sorted(numbered, key=numbered.__getitem__))
    return tuple(line.strip() for line in text.splitlines() if line.strip())
