"""Worker processes: one that hangs or dies costs the item it was at, and nothing else."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vjepa2cli.ingestion.workers import Done, run_here, run_in_processes

WORK = """
import errno, os, signal, time
from pathlib import Path
from vjepa2cli.ingestion.workers import Busy

def work(item, beat):
    what, _, where = item.partition(" ")
    if what == "hang":
        time.sleep(600)
    if what == "slow":
        for _ in range(25):
            time.sleep(0.1)
            beat()
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed":
        with Path(where).open("a") as file:
            file.write("x")
        if len(Path(where).read_text()) <= int(Path(where).stem):
            os.kill(os.getpid(), signal.SIGKILL)
    if what == "busy" and not Path(where).exists():
        Path(where).touch()
        return Busy()
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "defect":
        raise KeyError("a defect of ours")
    return item.upper()
"""

Work = Callable[[str, Callable[[], None]], object]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """What the processes do; it lies in a module, since they import it."""
    (tmp_path / "odd_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    import odd_work  # type: ignore[import-not-found]

    return odd_work.work


def by_item(done: list[Done[str, object]]) -> dict[str, object]:
    return {item.item: item.lost or item.result for item in done}


def test_what_hangs_or_crashes_is_lost_and_the_rest_is_done(work: Work, tmp_path: Path) -> None:
    killed_once = f"killed {tmp_path / '1'}"
    items = ["a", "hang", "b", "crash", killed_once, "slow", "c", f"busy {tmp_path / 'flag'}"]
    began = time.monotonic()
    found = by_item(list(run_in_processes(work, items, workers=2, patience=2.0)))
    assert time.monotonic() - began < 60
    assert found.pop("hang") == "the decoder made no progress for 2 s; re-encode it to H.264 mp4"
    assert found.pop("crash") == "the decoder crashed (SIGSEGV); re-encode it to H.264 mp4"
    assert found == {item: item.upper() for item in items if item in found}
    assert len(found) == 6
    assert (tmp_path / "1").read_text() == "xx"  # tried again, once


def test_what_kills_its_worker_each_time_is_given_up(work: Work, tmp_path: Path) -> None:
    item = f"killed {tmp_path / '9'}"
    (found,) = run_in_processes(work, [item], workers=2, patience=60.0)
    assert found.result is None
    assert "perhaps for want of memory; run again with fewer --workers" in str(found.lost)
    assert (tmp_path / "9").read_text() == "xx"


@pytest.mark.parametrize(("item", "error"), [("full", OSError), ("defect", RuntimeError)])
def test_what_the_work_raises_ends_the_run_and_its_workers(work: Work, item: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        list(run_in_processes(work, ["a", item, "hang"], workers=2, patience=60.0))
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.ENOSPC
    assert not [pid for pid in _children() if _state(pid) not in "ZX"]


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _state(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return "X"
    return "R" if "odd_work" in line or "spawn_main" in line else "Z"


def test_the_calling_process_can_do_the_work_itself(work: Work, tmp_path: Path) -> None:
    items = ["a", f"busy {tmp_path / 'flag'}", "b"]
    assert [item.item for item in run_here(work, items)] == ["a", "b", items[1]]


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    (tmp_path / "odd_work.py").write_text(WORK)
    script.write_text(
        "from odd_work import work\nfrom vjepa2cli.ingestion.workers import run_in_processes\n"
        "if __name__ == '__main__':\n    list(run_in_processes(work, ['hang', 'hang2'], workers=2, patience=600.0))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 30
    while len(children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(pid) for pid in children.read_text().split()]
    time.sleep(1.5)  # until the workers are at work
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids) and time.monotonic() < deadline + 30:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]
