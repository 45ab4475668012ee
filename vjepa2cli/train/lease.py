"""A lease on a run directory: of an orphaned job and its second submission, one writes.

On one machine, and on file systems that share locks, a lock on the file decides, and it ends with the process. Where machines do
not see each other's locks, or there are none, the file's content decides: the holder changes it every few seconds. No clocks are
compared.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from vjepa2cli.errors import TrainingError

_SECONDS_BETWEEN_BEATS = 10.0
_BEATS_TO_WAIT = 3
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lease:
    """What one process holds until it closes it or dies."""

    def __init__(self, path: Path, *, seconds_between_beats: float = _SECONDS_BETWEEN_BEATS) -> None:
        """Take the lease in the file `path`; raises TrainingError, naming the holder, where another process has it."""
        self._path, self._pause = path, seconds_between_beats
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(path)
            os.close(self._file)
            raise _held(path, holder) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._wait_for_silence(of_this_machine=True)
        else:
            self._wait_for_silence(of_this_machine=False)
        job = os.environ.get("SLURM_JOB_ID")
        self._content: dict[str, Any] = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": job,
            "beat": 0,
        }
        self._closed, self._writing = threading.Event(), threading.Lock()
        self._write()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _wait_for_silence(self, *, of_this_machine: bool) -> None:
        """Where the file names a holder, and no lock says that it is gone, see whether it still beats."""
        before = _read(self._path)
        if not before or (before.get("host") == socket.gethostname() and not of_this_machine):
            return
        for _ in range(_BEATS_TO_WAIT):
            time.sleep(self._pause)
            if (now := _read(self._path)) != before:
                os.close(self._file)
                raise _held(self._path, now or before)

    def require(self) -> None:
        """Raise TrainingError where another process has taken the lease meanwhile, as one may from a machine that hung."""
        with self._writing:
            now = _read(self._path)
        if now.get("token") != self._content["token"]:
            raise _held(self._path, now)

    def _beat(self) -> None:
        while not self._closed.wait(self._pause):
            # A full disk or a file server that is away must not end the run; the next beat may succeed.
            with contextlib.suppress(OSError):
                if _read(self._path).get("token") != self._content["token"]:
                    return
                self._content["beat"] += 1
                self._write()

    def _write(self) -> None:
        # In place, since the lock is on the file and not on its name.
        content = json.dumps(self._content).encode()
        with self._writing:
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))

    def close(self) -> None:
        """Give the lease back."""
        self._closed.set()
        self._heart.join()
        if _read(self._path).get("token") == self._content["token"]:
            os.ftruncate(self._file, 0)
        os.close(self._file)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def _held(path: Path, holder: dict[str, Any]) -> TrainingError:
    job = f", job {holder['job']}" if holder.get("job") else ""
    who = f" (process {holder['pid']} on {holder['host']}{job})" if holder else ""
    return TrainingError(
        f"{path.parent}: another process trains in this run directory{who}; wait for it or end it, or choose another --run-dir"
    )
