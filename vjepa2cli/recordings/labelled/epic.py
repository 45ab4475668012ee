"""Untrimmed videos with annotated actions, in the public format of Epic-Kitchens: a CSV a split, a verb and a noun an action."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.labelled.places import Places

_COLUMNS = ("narration_id", "participant_id", "video_id", "start_frame", "stop_frame", "verb", "verb_class", "noun", "noun_class")
_Pair = tuple[int, int]
_Key = TypeVar("_Key", int, _Pair)


@dataclass(frozen=True)
class Action:
    """One annotated action: frames `start` to `stop` of the video at `path`, and its class numbers as published."""

    name: str
    video: Path
    start: int
    stop: int
    verb: int
    noun: int


@dataclass(frozen=True)
class ActionSet:
    """Actions of both splits, what stands at each class number of verb, noun and action, and how many were left out.

    `verbs`, `nouns` and `actions` map published numbers to those of a probe; `names` are the classes in the probe's order.
    """

    train: tuple[Action, ...]
    val: tuple[Action, ...]
    verbs: dict[int, int]
    nouns: dict[int, int]
    actions: dict[_Pair, int]
    names: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    unseen: int
    missing: int


def read_actions(
    tables: Sequence[Path], *, root: Path | None, released_ids: bool, drop_missing: bool, drop_unseen: bool
) -> ActionSet:
    """Read the tables of training and of validation.

    Classes are those of training. With `released_ids` they are numbered as the released probes number them: in the order in
    which a Python set gives them back, which for numbers and pairs of numbers is the same in every process. Validation actions
    whose pair of verb and noun training does not show are left out, as in the released evaluation, or refused.
    """
    if len(tables) != 2:
        raise InputError(
            f"{len(tables)} tables of actions were given; give that of training and that of validation, since training numbers "
            "the classes"
        )
    rows = [_rows(table) for table in tables]
    texts: dict[str, dict[int, str]] = {"verb": {}, "noun": {}}
    for row in (*rows[0], *rows[1]):
        for kind, text in texts.items():
            text.setdefault(int(row[f"{kind}_class"]), row[kind])
    pairs = {(int(row["verb_class"]), int(row["noun_class"])) for row in rows[0]}
    verbs = _numbered({verb for verb, _ in pairs}, released_ids)
    nouns = _numbered({noun for _, noun in pairs}, released_ids)
    actions = _numbered(pairs, released_ids)
    seen = [row for row in rows[1] if (int(row["verb_class"]), int(row["noun_class"])) in actions]
    if len(seen) < len(rows[1]) and not drop_unseen:
        raise InputError(
            f"{tables[1]}: {len(rows[1]) - len(seen)} actions are of a verb and noun that {tables[0]} does not show together; "
            "set unseen=drop to leave them out, as the released evaluation does"
        )
    found, missing = [], 0
    for table, own in zip(tables, (rows[0], seen), strict=True):
        places = Places(table, root)
        found.append(_located(own, places))
        places.require(drop=drop_missing)
        missing += len(places.missing)
    names = (
        tuple(texts["verb"][verb] for verb in verbs),
        tuple(texts["noun"][noun] for noun in nouns),
        tuple(f"{texts['verb'][verb]} {texts['noun'][noun]}" for verb, noun in actions),
    )
    return ActionSet(found[0], found[1], verbs, nouns, actions, names, len(rows[1]) - len(seen), missing)


def _numbered(keys: set[_Key], as_released: bool) -> dict[_Key, int]:
    return {key: number for number, key in enumerate(keys if as_released else sorted(keys))}


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise InputError(f"{table}: no such file; give the published table of actions, such as EPIC_100_train.csv")
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if lacking:
            raise InputError(f"{table}: lacks the columns {', '.join(lacking)}; give a table in the format of EPIC_100_train.csv")
        rows = list(reader)
    for line, row in enumerate(rows, start=2):
        numbers = [row[column] or "" for column in ("start_frame", "stop_frame", "verb_class", "noun_class")]
        if not all(number.isdecimal() for number in numbers) or int(numbers[1]) < int(numbers[0]):
            raise InputError(
                f"{table}: line {line}: {row['narration_id']}: frames and classes must be numbers, start before stop"
            )
    if not rows:
        raise InputError(f"{table}: holds no actions; give the table of a split")
    return rows


def _located(rows: Sequence[dict[str, str]], places: Places) -> tuple[Action, ...]:
    """Videos lie in a folder a participant, with or without a folder `videos` in it, or all in one."""
    paths: dict[str, Path | None] = {}
    found = []
    for row in rows:
        video, participant = row["video_id"], row["participant_id"]
        if video not in paths:
            paths[video] = places.of(f"{participant}/videos/{video}", f"{participant}/{video}", video)
        path = paths[video]
        if path is not None:
            numbers = (int(row[column]) for column in ("start_frame", "stop_frame", "verb_class", "noun_class"))
            found.append(Action(row["narration_id"], path, *numbers))
    return tuple(found)
