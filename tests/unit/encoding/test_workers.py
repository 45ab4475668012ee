"""Decoding processes: what they say comes whole and in order, and one that dies costs its own input and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.data.cropping import evaluation_crop
from vjepa2cli.data.video import read_clip
from vjepa2cli.encoding.decoding import Ended, Frames, Refused, Task, read_here
from vjepa2cli.encoding.sources import find_sources
from vjepa2cli.encoding.workers import Crew, read_ahead

CROP = (32, 48)


def tasks_of(folder: Path) -> list[Task]:
    return [Task(number, source, CROP, None) for number, source in enumerate(find_sources([folder]))]


def said(messages: object) -> dict[int, list[object]]:
    """What was said of each input: its frames put together, then the rest."""
    found: dict[int, list[object]] = {}
    for message in messages:  # type: ignore[attr-defined]
        parts = found.setdefault(message.number, [])
        if isinstance(message, Frames):
            parts += [pixels.tobytes() for pixels in message.pixels] + list(message.times)[:0]
        else:
            parts.append((type(message), str(getattr(message, "error", "")), getattr(message, "digest", "")))
    return found


@pytest.mark.parametrize("crew", [Crew(1, 3, 1), Crew(2, 40, 3), Crew(3, 16, 2)])
def test_processes_say_what_this_one_would(inputs: Path, crew: Crew):
    assert said(read_ahead(tasks_of(inputs), crew)) == said(read_here(tasks_of(inputs)))


def test_frames_are_those_of_the_evaluation_crop(inputs: Path):
    (task,) = (task for task in tasks_of(inputs) if task.source.name == "a.mp4")
    *frames, end = read_here([task])
    clip = read_clip(inputs / "a.mp4")
    pixels = np.concatenate([message.pixels for message in frames if isinstance(message, Frames)])
    assert np.array_equal(pixels, evaluation_crop(clip.pixels, crop=CROP))
    assert isinstance(end, Ended)


def test_no_more_is_decoded_than_the_ring_holds(tmp_path: Path, make_video: Callable[..., Path]):
    make_video(tmp_path / "long.mp4", 200)
    messages = read_ahead(tasks_of(tmp_path), Crew(1, 8, 1))
    first = next(messages)
    assert isinstance(first, Frames)
    time.sleep(1.0)
    # Of 200 frames at most eight wait, so a message can hold no more.
    sizes = [len(first.pixels)] + [len(message.pixels) for message in messages if isinstance(message, Frames)]
    assert max(sizes) <= 8
    assert sum(sizes) == 200


def children() -> set[int]:
    """Processes that this one has started, without those that wait to be collected."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            line = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and b"spawn_main" in line:
            found.add(int(path.parent.name))
    return found


def test_a_process_that_dies_is_named_with_its_input_and_replaced(tmp_path: Path, make_video: Callable[..., Path]):
    for name in "abcd":
        make_video(tmp_path / f"{name}.mp4", 40)
    found, killed = [], False
    for message in read_ahead(tasks_of(tmp_path), Crew(1, 8, 3)):
        found.append(message)
        if isinstance(message, Frames) and message.number == 1 and not killed:
            (process,) = children()
            os.kill(process, signal.SIGKILL)
            killed = True
    refused = [message for message in found if isinstance(message, Refused)]
    assert [message.number for message in refused] == [1]
    assert f"{tmp_path / 'b.mp4'}: the process that decoded it died (SIGKILL, perhaps for want of memory)" in str(
        refused[0].error
    )
    assert [message.number for message in found if isinstance(message, Ended)] == [0, 2, 3]
    assert children() == set()


def test_giving_up_ends_the_processes(inputs: Path):
    messages = read_ahead(tasks_of(inputs), Crew(2, 4, 2))
    next(messages)
    assert len(children()) == 2
    messages.close()
    assert children() == set()


def test_a_process_that_only_decodes_knows_no_torch():
    code = "import sys, vjepa2cli.encoding.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_script_without_a_guard_is_told_so(inputs: Path, tmp_path: Path):
    (tmp_path / "script.py").write_text(
        "from vjepa2cli.encoding.decoding import Task\nfrom vjepa2cli.encoding.sources import find_sources\n"
        "from vjepa2cli.encoding.workers import Crew, read_ahead\n"
        f"list(read_ahead([Task(0, find_sources([{str(inputs / 'a.mp4')!r}])[0], (32, 32), None)], Crew(1, 8, 1)))\n"
    )
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 1
    assert "call encode below if __name__ == '__main__'" in ended.stderr.splitlines()[-1]
