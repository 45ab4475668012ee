"""Tables of videos: which ones, from where to where, with which label, and how often they are drawn.

CSV with a header line, JSON lines, or the released lists of `path label`. Columns: `path` (or `video`), and if wanted `label`,
`start` and `end` in seconds or `start_frame` and `num_frames`, `weight`, `episode`. Other columns are passed over.
"""

import csv
import difflib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.spans import Span

SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson"})
# The lists of facebookresearch/vjepa2: a path and a class number on each line, no header.
_RELEASED_LINE = re.compile(r"([^,]*\S) (\d+)")
_Table = tuple[set[str], list[tuple[int, Mapping[str, Any]]]]
_COLUMNS = ("path", "video", "label", "start", "end", "start_frame", "num_frames", "weight", "episode")


@dataclass(frozen=True)
class LabelledSpan:
    """A stretch of a video that shows one thing."""

    span: Span
    label: str


@dataclass(frozen=True)
class Row:
    """One line: a stretch of a video (or all of it), its label if it has one, and its share of the draws."""

    line: int
    span: Span
    label: str | None = None
    weight: float | None = None
    episode: str | None = None


@dataclass(frozen=True)
class Listed:
    """What one path of the table says. `name` is the path as written there; several rows are several stretches of one video."""

    name: str
    path: Path
    rows: tuple[Row, ...]
    episode: str | None

    @property
    def labelled(self) -> tuple[LabelledSpan, ...]:
        """The rows that have a label, in order."""
        found = {LabelledSpan(row.span, row.label) for row in self.rows if row.label is not None}
        return tuple(sorted(found, key=lambda item: (item.span.start, item.span.stop or 0, item.label)))


def read_manifest(table: str | Path, *, need_labels: bool = False) -> list[Listed]:
    """Read a table, one item a path in the order of first mention.

    Paths are relative to the table's folder or, where nothing is there, to the nearest folder above it that has them. Raises
    InputError with the line for what is missing or misspelt, and where only some rows have a weight.
    """
    table = Path(table)
    rows: dict[str, list[Row]] = {}
    for line, cells in _lines(table, need_labels=need_labels):
        name = cells.get("path") or cells.get("video")
        if not name or (need_labels and not cells.get("label")):
            raise InputError(f"{table}: line {line}: video and label must not be empty; fill them in or drop the line")
        row = Row(line, _span(cells, table, line), cells.get("label"), _weight(cells, table, line), cells.get("episode"))
        rows.setdefault(name, []).append(row)
    if not rows:
        raise InputError(f"{table}: holds no rows; list at least one video")
    weighted = [row.weight is not None for of_path in rows.values() for row in of_path]
    if any(weighted) and not all(weighted):
        raise InputError(f"{table}: {weighted.count(False)} rows have no weight and the others have one; give all of them one")
    return [_listed(table, name, tuple(of_path)) for name, of_path in rows.items()]


def _lines(table: Path, *, need_labels: bool) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and the cells that are not empty, as text."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        columns, rows = _from_csv(text) if table.suffix.lower() == ".csv" else _from_json_lines(text)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{table}: not a table in CSV or JSON lines ({error}); save it as UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{table}: no such file; give a table of videos, .csv or .jsonl") from None
    missing = [] if columns & {"path", "video"} else ["video (or path)"]
    missing += [] if "label" in columns or not need_labels else ["label"]
    if missing:
        raise InputError(f"{table}: columns {', '.join(sorted(columns)) or 'none'}; needs {' and '.join(missing)}")
    for column in sorted(columns - set(_COLUMNS)):
        near = difflib.get_close_matches(column.lower().replace(" ", "_"), _COLUMNS, n=1, cutoff=0.8)
        if near and near[0] not in columns:
            raise InputError(f"{table}: column {column!r}: {near[0]!r} is meant, it seems; rename it")
    return [
        (line, {name: text for name, cell in row.items() if cell is not None and (text := str(cell).strip())})
        for line, row in rows
    ]


def _from_csv(text: str) -> _Table:
    released = [_RELEASED_LINE.fullmatch(line) for line in text.splitlines()]
    if released and all(released):
        pairs = [found.groups() for found in released if found]
        return {"path", "label"}, [(line, {"path": path, "label": label}) for line, (path, label) in enumerate(pairs, start=1)]
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = set(reader.fieldnames or ())
    return columns, [(reader.line_num, {name: cell for name, cell in row.items() if name in columns}) for row in reader]


def _from_json_lines(text: str) -> _Table:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip():
            try:
                row = json.loads(content)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {line}: {error.msg}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {line}: no JSON object")
            rows.append((line, row))
    return {name for _, row in rows for name in row}, rows


def _span(cells: Mapping[str, str], table: Path, line: int) -> Span:
    seconds = [_number(cells, name, table, line, least=0.0) for name in ("start", "end")]
    first, count = _count(cells, "start_frame", table, line, least=0), _count(cells, "num_frames", table, line, least=1)
    if any(value is not None for value in seconds) and (first is not None or count is not None):
        raise InputError(f"{table}: line {line}: start and end are seconds, start_frame and num_frames frames; give one kind")
    begin, end = seconds
    if begin is None and end is None:
        return Span(first or 0, None if count is None else (first or 0) + count)
    if end is not None and end <= (begin or 0):
        raise InputError(f"{table}: line {line}: end: {end:g} s does not come after start {begin or 0:g} s")
    return Span(begin or 0.0, end, "seconds")


def _weight(cells: Mapping[str, str], table: Path, line: int) -> float | None:
    weight = _number(cells, "weight", table, line, least=0.0)
    if weight == 0:
        raise InputError(f"{table}: line {line}: weight: 0 would never be drawn; drop the line, or give a share above 0")
    return weight


def _listed(table: Path, name: str, rows: tuple[Row, ...]) -> Listed:
    episodes = sorted({row.episode for row in rows if row.episode is not None})
    if len(episodes) > 1:
        raise InputError(f"{table}: {name} belongs to episodes {', '.join(episodes)}; a video has one")
    return Listed(name, _locate(table, name), rows, episodes[0] if episodes else None)


def _locate(table: Path, name: str) -> Path:
    for folder in table.resolve().parents:
        if (folder / name).exists():
            return folder / name
    return table.resolve().parent / name


def _number(cells: Mapping[str, str], column: str, table: Path, line: int, *, least: float) -> float | None:
    text = cells.get(column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise InputError(f"{table}: line {line}: {column}: {text!r} is not a number of at least {least:g}")
    return value


def _count(cells: Mapping[str, str], column: str, table: Path, line: int, *, least: int) -> int | None:
    text = cells.get(column)
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        raise InputError(f"{table}: line {line}: {column}: {text!r} is not a whole number of at least {least}")
    return int(text)
