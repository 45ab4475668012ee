"""What a command shows beside its result: progress and log lines on stderr, the result alone on stdout."""

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vjepa2cli.errors import KeyFault
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.ranks import is_leader

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_SECONDS_BETWEEN_LINES = 10.0


class TerminalProgress:
    """A Progress drawn as a bar on a terminal: units, newest numbers, rate, time passed and left."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._rate = _Rate()
        self._fields: dict[str, float] = {}

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Begin a bar of `total` units of which `done` were done by an earlier run."""
        from rich import progress as rich_progress
        from rich.console import Console

        self.finish()
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=None),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[numbers]}", markup=False),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("{task.fields[left]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._bars.add_task(description, total=total, completed=done, numbers="", left="")
        self._rate, self._fields = _Rate(done), {}
        self._bars.start()

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        """Move on by `count` units and show the newest `fields`, such as a loss."""
        if self._bars is None or self._task is None:
            return
        self._fields |= fields or {}
        self._rate.add(count)
        task = self._bars.tasks[0]
        numbers = "  ".join([*_numbers(self._fields), f"{self._rate.per_second:.3g}/s"])
        left = f"left {_clock(self._rate.seconds_for((task.total or 0) - task.completed - count))}"
        self._bars.update(self._task, advance=count, numbers=numbers, left=left)

    def finish(self) -> None:
        """Close the bar."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = self._task = None


class LineProgress:
    """A Progress for log files: one line at the start, one every few seconds, one at the end."""

    def __init__(self, stream: TextIO, *, seconds_between_lines: float = _SECONDS_BETWEEN_LINES) -> None:
        self._stream = stream
        self._pause = seconds_between_lines
        self._open = False

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Begin counting to `total`; `done` units were done by an earlier run."""
        self.finish()
        self._description, self._total, self._done = description, total, done
        self._rate = _Rate(done)
        self._fields: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._open = True
        resumed = f", {done} of them done before" if done else ""
        self._write(f"{description}: {total} to do{resumed}")

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        """Move on by `count` units; a line is written when the last one is some seconds old."""
        if not self._open:
            return
        self._done += count
        self._rate.add(count)
        self._fields |= fields or {}
        if time.monotonic() - self._last_line >= self._pause:
            self._last_line = time.monotonic()
            self._write(self._status() + f", left {_clock(self._rate.seconds_for(self._total - self._done))}")

    def finish(self) -> None:
        """Write the last line."""
        if self._open:
            self._write(self._status() + f", took {_clock(self._rate.seconds_passed)}")
        self._open = False

    def _status(self) -> str:
        parts = [f"{self._done}/{self._total}", *_numbers(self._fields), f"{self._rate.per_second:.3g}/s"]
        return f"{self._description}: {', '.join(parts)}"

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class _Rate:
    """Units a second since the start, so a run that was resumed does not count what it did before."""

    def __init__(self, done: int = 0) -> None:
        self.resumed_at = done
        self._since = time.monotonic()
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count

    @property
    def seconds_passed(self) -> float:
        return time.monotonic() - self._since

    @property
    def per_second(self) -> float:
        return self._count / max(self.seconds_passed, 1e-6)

    def seconds_for(self, units: float) -> float:
        return units / max(self.per_second, 1e-6)


def _numbers(fields: dict[str, float]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in fields.items()]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


@contextmanager
def step_output(target: Path | None = None) -> Iterator[Progress]:
    """Yield the progress of one step; whatever a library prints meanwhile goes to stderr, so stdout holds the result alone.

    Of several processes the leader alone shows any. An OSError that does not say where is given the step's `target`.
    """
    shown: Progress = TerminalProgress() if sys.stderr.isatty() else LineProgress(sys.stderr)
    shown = shown if is_leader() else SILENT
    sys.stdout.flush()
    result_stream = os.dup(1)
    os.dup2(2, 1)
    try:
        yield shown
    except OSError as error:
        error.filename = error.filename or target
        raise
    finally:
        shown.finish()
        sys.stdout.flush()
        os.dup2(result_stream, 1)
        os.close(result_stream)


def set_up_logging(*, verbose: bool) -> None:
    """Send log records to stderr: everything with `verbose`, otherwise warnings only, and no library's Python warnings."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if not verbose:
        warnings.simplefilter("ignore")
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.captureWarnings(verbose)


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Write a command's result to stdout: `text` for people, or `result` as one JSON object; of several processes one does."""
    if not is_leader():
        return
    sys.stdout.write((json.dumps(result, indent=1, sort_keys=True) if as_json else text).rstrip("\n") + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(" ".join(line.split()) + "\n")
    sys.stderr.flush()


def show_faults(faults: Sequence[KeyFault]) -> None:
    """Write the keys of a checkpoint that do not fit to stderr, as a table; nothing where there are none."""
    if faults:
        sys.stderr.write(table(("", "key", "in the file", "in the network"), faults) + "\n")
        sys.stderr.flush()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, colours: Sequence[str] = ()) -> str:
    """Rows in aligned columns; `colours` (one a row: green, yellow, red) tint the first cell where stdout is a terminal."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        codes = {"green": "32", "yellow": "33", "red": "31"}
        for number, colour in enumerate(colours, start=1):
            head, rest = text[number][: widths[0]], text[number][widths[0] :]
            text[number] = f"\x1b[{codes[colour]}m{head}\x1b[0m{rest}"
    return "\n".join(text)
