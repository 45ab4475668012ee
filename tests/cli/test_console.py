"""Progress and tables: numbers that add up, on the right stream."""

import io
import os
import pty
import subprocess
import sys

import pytest

from vjepa2cli.cli import console


def test_lines_tell_units_numbers_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = console.LineProgress(stream, seconds_between_lines=10)
    progress.start("pretrain", total=100, done=40)
    for _ in range(4):
        now[0] += 5
        progress.advance(5, fields={"loss": 0.123456})
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "pretrain: 100 to do, 40 of them done before",
        "pretrain: 50/100, loss 0.1235, 1/s, left 0:00:50",
        "pretrain: 60/100, loss 0.1235, 1/s, left 0:00:40",
        "pretrain: 60/100, loss 0.1235, 1/s, took 0:00:20",
    ]


def test_a_second_bar_closes_the_first() -> None:
    stream = io.StringIO()
    progress = console.LineProgress(stream)
    progress.start("one", total=1)
    progress.start("two", total=1)
    progress.finish()
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == ["one", "one", "two", "two"]


BAR = """
from vjepa2cli.cli import console
with console.step_output() as progress:
    progress.start("train [x]", total=3, done=1)
    progress.advance(1, fields={"loss": 0.5})
    progress.advance(1, fields={"loss": 0.25})
    print("a library's chatter")
print("the result")
"""


def test_stdout_holds_the_result_alone() -> None:
    ended = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, check=True)
    assert ended.stdout == "the result\n"
    assert "a library's chatter" in ended.stderr


def test_terminal_shows_a_bar_with_loss_rate_and_time_left() -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    ended = subprocess.run([sys.executable, "-c", BAR], stdout=subprocess.PIPE, stderr=theirs, text=True, check=True, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert ended.stdout == "the result\n"
    for part in (b"train [x]", b"3/3", b"loss 0.25", b"/s", b"left 0:00:00"):
        assert part in shown


def test_table_columns_are_aligned() -> None:
    lines = console.table(("a", "b"), [("long", "x"), ("s", "y")]).splitlines()
    assert {line.index(word) for line, word in zip(lines, "bxy", strict=True)} == {6}
