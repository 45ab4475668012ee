"""Processes that decode ahead of the encoder, each into a ring of frames that it shares with this one.

A process that dies takes its input with it and nothing else: the input is refused, and another process takes its place.
"""

import ctypes
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import numpy as np

from vjepa2cli.data.video import use_one_thread
from vjepa2cli.encoding.decoding import Ended, Frames, Message, Refused, Task, Unchanged, read
from vjepa2cli.errors import InputError, Vjepa2Error

_CONTEXT = multiprocessing.get_context("spawn")
_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Crew:
    """How many processes decode, how many frames each holds at most, and how many inputs it is told of ahead."""

    processes: int
    ring_frames: int
    tasks_ahead: int


@dataclass(frozen=True)
class _Begun:
    number: int


@dataclass(frozen=True)
class _Placed:
    """Frames that lie in the ring."""

    number: int
    slots: list[int]
    times: Sequence[float]


def read_ahead(tasks: Sequence[Task], crew: Crew) -> Generator[Message, None, None]:
    """Read inputs in several processes at once; what each says of an input comes in order.

    No more is decoded than the rings hold until the caller asks for more. Raises Vjepa2Error where no process can start.
    """
    waiting = deque(tasks)
    workers = [_Worker(tasks[0].crop, crew.ring_frames) for _ in range(min(crew.processes, len(tasks)))]
    try:
        while True:
            for worker in workers:
                worker.take(waiting, limit=crew.tasks_ahead)
            busy: dict[Any, _Worker] = {worker.connection: worker for worker in workers if worker.tasks}
            if not busy:
                return
            for ready in connection.wait(list(busy)):
                worker = busy[ready]
                try:
                    message = worker.receive()
                except (EOFError, OSError):
                    waiting.extendleft(reversed(worker.unbegun))
                    workers[workers.index(worker)] = _Worker(tasks[0].crop, crew.ring_frames)
                    message = worker.lost()
                if message is not None:
                    yield message
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """The near end of a process that decodes."""

    def __init__(self, crop: tuple[int, int], ring_frames: int) -> None:
        shape = (ring_frames, *crop, 3)
        memory = _CONTEXT.RawArray(ctypes.c_uint8, int(np.prod(shape)))
        self._ring = np.frombuffer(memoryview(memory), np.uint8).reshape(shape)
        self.connection, far_end = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(far_end, memory, shape), daemon=True)
        # The process inherits the mask: an interruption is for this process alone, which ends the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()
        self.tasks: deque[Task] = deque()
        self._has_started = self._has_begun = False

    @property
    def unbegun(self) -> list[Task]:
        """The tasks that it was given and has not looked at."""
        return list(self.tasks)[self._has_begun :]

    def take(self, waiting: deque[Task], *, limit: int) -> None:
        """Give it the next tasks, so that it never waits for one."""
        while waiting and len(self.tasks) < limit:
            self.tasks.append(waiting.popleft())
            self._tell(self.tasks[-1])

    def receive(self) -> Message | None:
        """The next thing that it says of its tasks; raises EOFError or OSError where it has died."""
        match self.connection.recv():
            case _Placed(number, slots, times):
                pixels = self._ring[slots]
                self._tell(slots)
                return Frames(number, pixels, times)
            case _Begun():
                self._has_begun = True
            case Ended() | Unchanged() | Refused() as message:
                self.tasks.popleft()
                self._has_begun = False
                return message
            case None:
                self._has_started = True
        return None

    def lost(self) -> Refused | None:
        """What the death of the process means for the task that it was at."""
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        self.end()
        if not self._has_started:
            raise Vjepa2Error(
                f"a decoding process ended before it began ({how}); in a script call encode below if __name__ == '__main__', "
                "or give workers=0"
            )
        if not self._has_begun:
            return None
        task = self.tasks[0]
        memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return Refused(task.number, InputError(f"{task.source.path}: the process that decoded it died ({how}{memory})"))

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.connection.close()
        self._process.terminate()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _tell(self, order: Task | list[int]) -> None:
        # Where it has died, `receive` says so.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(order)


def _serve(orders: Any, memory: Any, shape: tuple[int, ...]) -> None:
    """Decode tasks until the other end of `orders` closes; what comes from there are tasks, and slots of the ring to reuse."""
    use_one_thread()
    ring = np.frombuffer(memory, np.uint8).reshape(shape)
    free = list(range(len(ring)))
    tasks: deque[Task] = deque()

    def listen(*, until: Callable[[], bool]) -> None:
        """Take what was ordered, and wait for more until the condition holds."""
        while orders.poll() or not until():
            order = orders.recv()
            if isinstance(order, Task):
                tasks.append(order)
            else:
                free.extend(order)

    # Where the other end closes, the run is over.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        orders.send(None)
        while True:
            listen(until=lambda: bool(tasks))
            task = tasks.popleft()
            orders.send(_Begun(task.number))
            for message in read(task):
                if not isinstance(message, Frames):
                    orders.send(message)
                    continue
                start = 0
                while start < len(message.pixels):
                    listen(until=lambda: bool(free))
                    slots = [free.pop() for _ in range(min(len(free), len(message.pixels) - start))]
                    stop = start + len(slots)
                    ring[slots] = message.pixels[start:stop]
                    orders.send(_Placed(task.number, slots, message.times[start:stop]))
                    start = stop
