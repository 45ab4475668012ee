"""Worker processes that cannot take the run with them: one that hangs or dies costs the item it was at, and is replaced."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from vjepa2cli.data.video import use_one_thread
from vjepa2cli.errors import Vjepa2Error

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Beat = Callable[[], None]
"""What work calls now and then to say that it goes on."""

_BEAT_SECONDS = 1.0
_BUSY_SECONDS = 0.5
# A busy machine or a network file system takes its time over a process's imports.
_START_SECONDS = 120.0


class Busy:
    """What work returns for an item that another process is at; it is tried again when the others are done."""


@dataclass(frozen=True)
class Done(Generic[_Item, _Result]):
    """An item and what came of it: a result, or in `lost` why there is none. `peak_bytes` is the most memory its worker held."""

    item: _Item
    result: _Result | None
    lost: str | None = None
    peak_bytes: int = 0


def run_here(work: Callable[[_Item, Beat], "_Result | Busy"], items: Sequence[_Item]) -> Iterator[Done[_Item, _Result]]:
    """Do the work in this process, in order, with nobody to look after it."""
    waiting = deque(items)
    while waiting:
        item = waiting.popleft()
        result = work(item, lambda: None)
        if isinstance(result, Busy):
            waiting.append(item)
            time.sleep(_BUSY_SECONDS)
        else:
            yield Done(item, result, peak_bytes=_peak_bytes())


def run_in_processes(
    work: Callable[[_Item, Beat], "_Result | Busy"], items: Sequence[_Item], *, workers: int, patience: float
) -> Iterator[Done[_Item, _Result]]:
    """Do the work in spawned processes and yield items as they are done.

    A worker that has not called its beat for `patience` seconds is killed. One that was killed from outside, as the kernel does
    when memory is short, gets one more try for its item after all others. What the work raises is raised here.
    """
    waiting, tried_again = deque(items), set[int]()
    crew = [_Worker(work) for _ in range(min(workers, len(items)))]
    not_before = 0.0
    try:
        while waiting or any(worker.item is not None for worker in crew):
            for worker in crew:
                if worker.item is None and waiting and time.monotonic() >= not_before:
                    worker.give(waiting.popleft())
            wait([worker.connection for worker in crew if worker.item is not None], timeout=_BUSY_SECONDS)
            for place, worker in enumerate(crew):
                if worker.item is None:
                    continue
                item, answer = worker.item, worker.answer(patience)
                if isinstance(answer, Exception):
                    raise answer
                if answer is None:
                    continue
                if isinstance(answer.result, Busy):
                    waiting.append(item)
                    not_before = time.monotonic() + _BUSY_SECONDS
                    continue
                if answer.lost is not None:
                    crew[place] = _Worker(work)
                    if worker.process.exitcode == -signal.SIGKILL and not worker.was_stuck and id(item) not in tried_again:
                        tried_again.add(id(item))
                        waiting.append(item)
                        continue
                yield answer
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process, the item that it is at, and when it was last heard of."""

    def __init__(self, work: Callable[[Any, Beat], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Any = None
        self.was_stuck = False
        self._heard, self._has_started = time.monotonic(), False

    def give(self, item: Any) -> None:
        self.item, self._heard = item, time.monotonic()
        with suppress(BrokenPipeError):  # where it has died, `answer` will find that
            self.connection.send(item)

    def answer(self, patience: float) -> Done[Any, Any] | Exception | None:
        """What came of the item, if anything has."""
        try:
            while self.connection.poll():
                self._heard, self._has_started = time.monotonic(), True
                kind, content, peak = self.connection.recv()
                if kind == "beat":
                    continue
                item, self.item = self.item, None
                return content if kind == "raised" else Done(item, content, peak_bytes=peak)
        except (EOFError, ConnectionResetError):
            self.process.join()
            if (code := self.process.exitcode or 0) >= 0:
                return RuntimeError(f"a worker process ended with exit code {code} at {self.item}; what it said stands above")
            return Done(self.item, None, lost=_death(-code))
        if time.monotonic() - self._heard > (patience if self._has_started else max(patience, _START_SECONDS)):
            self.was_stuck = True
            self.end()
            return Done(self.item, None, lost=f"the decoder made no progress for {patience:g} s; re-encode it to H.264 mp4")
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _death(number: int) -> str:
    if number == signal.SIGKILL:
        return "the process that decoded it was killed, perhaps for want of memory; run again with fewer --workers"
    return f"the decoder crashed ({signal.Signals(number).name}); re-encode it to H.264 mp4"


def _serve(connection: Connection, work: Callable[[Any, Beat], Any]) -> None:
    # An interruption ends a worker without a traceback of its own; the parent tells the user.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_one_thread()
    last = float("-inf")

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > _BEAT_SECONDS:
            last = time.monotonic()
            connection.send(("beat", None, 0))

    beat()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        answer: tuple[str, Any, int]
        try:
            answer = ("done", work(item, beat), _peak_bytes())
        except (Vjepa2Error, OSError) as error:
            answer = ("raised", error, 0)
        connection.send(answer)


def _end_with_parent() -> None:
    # A worker that outlives a killed parent would go on writing beside the next run.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _peak_bytes() -> int:
    """The most memory that this process has held; what `getrusage` says counts the process that started it as well."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
