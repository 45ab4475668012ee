"""Of two processes that want a run directory, one gets it, also where their machines share no locks."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from vjepa2cli.errors import TrainingError
from vjepa2cli.train.lease import Lease

ELSEWHERE = {"token": "t", "host": "another-machine", "pid": 7, "job": "42", "beat": 0}


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    first = Lease(tmp_path / ".lease")
    with pytest.raises(TrainingError, match=rf"process {os.getpid()} on .*--run-dir"):
        Lease(tmp_path / ".lease")
    first.close()
    Lease(tmp_path / ".lease").close()


def test_what_a_killed_holder_on_this_machine_left_is_taken_at_once(tmp_path: Path) -> None:
    first = Lease(tmp_path / ".lease")
    left = (tmp_path / ".lease").read_text()
    first.close()
    (tmp_path / ".lease").write_text(left)
    began = time.monotonic()
    second = Lease(tmp_path / ".lease")
    assert time.monotonic() - began < 1
    second.require()
    assert json.loads((tmp_path / ".lease").read_text())["token"] != json.loads(left)["token"]
    second.close()


def test_a_holder_on_another_machine_that_beats_is_respected(tmp_path: Path) -> None:
    path, ended = tmp_path / ".lease", threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.05):
            number += 1
            path.write_text(json.dumps(ELSEWHERE | {"beat": number}))

    path.write_text(json.dumps(ELSEWHERE))
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(TrainingError, match="process 7 on another-machine, job 42"):
            Lease(path, seconds_between_beats=0.2)
    finally:
        ended.set()
        beating.join()


def test_a_holder_on_another_machine_that_is_silent_has_lost_it(tmp_path: Path) -> None:
    path = tmp_path / ".lease"
    path.write_text(json.dumps(ELSEWHERE))
    lease = Lease(path, seconds_between_beats=0.02)
    lease.require()
    time.sleep(0.1)
    assert json.loads(path.read_text())["beat"] > 0
    path.write_text(json.dumps(ELSEWHERE))  # as a machine that hung would find it
    with pytest.raises(TrainingError, match="another-machine"):
        lease.require()
    time.sleep(0.1)
    assert json.loads(path.read_text()) == ELSEWHERE
    lease.close()
    assert json.loads(path.read_text()) == ELSEWHERE


def test_where_a_file_system_has_no_locks_the_beat_alone_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    first = Lease(tmp_path / ".lease", seconds_between_beats=0.05)
    with pytest.raises(TrainingError, match=f"process {os.getpid()}"):
        Lease(tmp_path / ".lease", seconds_between_beats=0.2)
    first.close()
    Lease(tmp_path / ".lease", seconds_between_beats=0.05).close()
