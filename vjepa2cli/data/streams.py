"""Many clips out of one long video in one pass: every frame is decoded once, and held while a clip still needs it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_Made = TypeVar("_Made")
_PAUSE = 0.1


def overlapping_clips(frames: Iterable[tuple[int, Pixels]], wanted: Sequence[NDArray[np.int64]]) -> Iterator[tuple[int, Pixels]]:
    """Cut clips out of a stream of (number, pixels): yields (place in `wanted`, pixels [F, Y, X, 3]) as soon as each is whole.

    Every clip lists the numbers of its frames, which never fall. `frames` must give those numbers in order, each once; where it
    ends before, the last frame stands for those that lack.
    """
    users = Counter(number for numbers in wanted for number in {*numbers.tolist()})
    order = sorted(range(len(wanted)), key=lambda place: (int(wanted[place][-1]), place))
    held: dict[int, Pixels] = {}
    latest: tuple[int, Pixels] | None = None
    done = 0
    for number, pixels in frames:
        latest = (number, pixels)
        held[number] = pixels
        while done < len(order) and wanted[order[done]][-1] <= number:
            yield order[done], _take(wanted[order[done]], held, users, latest)
            done += 1
    while done < len(order) and latest is not None:
        yield order[done], _take(wanted[order[done]], held, users, latest)
        done += 1


def _take(numbers: NDArray[np.int64], held: dict[int, Pixels], users: Counter[int], latest: tuple[int, Pixels]) -> Pixels:
    clip = np.stack([held.get(number, latest[1]) for number in numbers.tolist()])
    for number in {*numbers.tolist()}:
        users[number] -= 1
        if users[number] == 0:
            held.pop(number, None)
    return clip


class _Producer(Generic[_Made]):
    """A thread that fills a queue from an iterator, and passes on what that raised."""

    def __init__(self, source: Callable[[], Iterator[_Made]], *, ahead: int, stop: Event) -> None:
        self._queue: Queue[tuple[str, Any]] = Queue(max(1, ahead))
        self._stop = stop
        Thread(target=self._run, args=(source,), name="stream", daemon=True).start()

    def _run(self, source: Callable[[], Iterator[_Made]]) -> None:
        try:
            for made in source():
                if not self._put(("made", made)):
                    return
            self._put(("ended", None))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._put(("failed", error))

    def _put(self, item: tuple[str, Any]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_PAUSE)
            except Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[_Made]:
        while True:
            kind, made = self._queue.get()
            if kind == "failed":
                raise made
            if kind == "ended":
                return
            yield made


def one_after_another(sources: Iterable[Callable[[], Iterator[_Made]]], *, threads: int, ahead: int) -> Iterator[_Made]:
    """All that the sources give, in their order, while `threads` of them run, each at most `ahead` items in advance."""
    stop = Event()
    waiting = iter(sources)
    running: list[_Producer[_Made]] = []
    try:
        while True:
            while len(running) < max(1, threads) and (source := next(waiting, None)) is not None:
                running.append(_Producer(source, ahead=ahead, stop=stop))
            if not running:
                return
            yield from running[0]
            del running[0]
    finally:
        stop.set()
