"""A CSV of labelled windows: columns `video` (or `path`) and `label`, and if wanted `start_frame`, `num_frames`, `episode`."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vjepa2cli.errors import InputError


@dataclass(frozen=True)
class LabelledWindow:
    """Frames `start` to `start + num_frames` of a video file, or to its end where `num_frames` is None."""

    start: int
    num_frames: int | None
    label: str


@dataclass(frozen=True)
class LabelledVideo:
    """One video of the table. `name` is its path as written there; `episode`, if given, groups what must share a split."""

    path: Path
    name: str
    episode: str | None
    windows: tuple[LabelledWindow, ...]


def read_labels(table: str | Path) -> list[LabelledVideo]:
    """Read a table of labelled windows, one video each in the order of first mention.

    Paths are relative to the table's folder or, where nothing is there, to the nearest folder above it that has them. Raises
    InputError with the line for what is missing or misspelt.
    """
    table = Path(table)
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            columns = set(reader.fieldnames or ())
            rows = list(enumerate(reader, start=2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV table ({error}); save it as UTF-8 with a header line") from None
    except FileNotFoundError:
        raise InputError(f"{table}: no such file; give a CSV of labelled windows") from None
    if not columns & {"video", "path"} or "label" not in columns:
        raise InputError(f"{table}: columns {', '.join(sorted(columns)) or 'none'}; needs video (or path) and label")
    videos: dict[str, list[tuple[LabelledWindow, str | None]]] = {}
    for line, row in rows:
        name = (row.get("video") or row.get("path") or "").strip()
        label = (row.get("label") or "").strip()
        if not name or not label:
            raise InputError(f"{table}: line {line}: video and label must not be empty; fill them in or drop the line")
        start = _count(row, "start_frame", table, line, least=0) or 0
        window = LabelledWindow(start, _count(row, "num_frames", table, line, least=1), label)
        videos.setdefault(name, []).append((window, (row.get("episode") or "").strip() or None))
    if not videos:
        raise InputError(f"{table}: holds no rows; label at least one window")
    return [_video(table, name, items) for name, items in videos.items()]


def _video(table: Path, name: str, items: list[tuple[LabelledWindow, str | None]]) -> LabelledVideo:
    episodes = sorted({episode for _, episode in items if episode is not None})
    if len(episodes) > 1:
        raise InputError(f"{table}: {name} belongs to episodes {', '.join(episodes)}; a video has one")
    windows = sorted({window for window, _ in items}, key=lambda window: (window.start, window.num_frames or 0, window.label))
    return LabelledVideo(_locate(table, name), name, episodes[0] if episodes else None, tuple(windows))


def _locate(table: Path, name: str) -> Path:
    for folder in table.resolve().parents:
        if (folder / name).exists():
            return folder / name
    return table.resolve().parent / name


def _count(row: Mapping[str, str | None], column: str, table: Path, line: int, *, least: int) -> int | None:
    text = (row.get(column) or "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) < least:
        raise InputError(f"{table}: line {line}: {column}: {text!r} is not a whole number of at least {least}")
    return int(text)
