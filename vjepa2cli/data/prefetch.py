"""Batches made by threads while the one before is used; what is in them stays a function of (step, rows)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_Made = TypeVar("_Made")
Tasks = Sequence[Callable[[], None]]


class Prefetcher(Generic[_Made]):
    """Gives what `plan` plans, and begins the same rows of the next step."""

    def __init__(self, plan: Callable[[int, range], tuple[_Made, Tasks]], *, threads: int) -> None:
        """`plan(step, rows)` gives a value and the tasks that fill it, in any order; without threads they run when asked for."""
        self._plan = plan
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch") if threads else None
        self._begun: dict[tuple[int, range], tuple[_Made, list[Future[None]]]] = {}

    def get(self, step: int, rows: range) -> _Made:
        """The filled value of these rows; raises what a task raised."""
        if self._pool is None:
            made, tasks = self._plan(step, rows)
            for task in tasks:
                task()
            return made
        key = (step, rows)
        made, under_way = self._begun.pop(key) if key in self._begun else self._begin(step, rows)
        for future in under_way:
            future.result()
        # What is left of other steps was begun before a run went back.
        self._begun = {key: begun for key, begun in self._begun.items() if key[0] in (step, step + 1)}
        if (step + 1, rows) not in self._begun:
            self._begun[step + 1, rows] = self._begin(step + 1, rows)
        return made

    def _begin(self, step: int, rows: range) -> tuple[_Made, list[Future[None]]]:
        assert self._pool is not None
        made, tasks = self._plan(step, rows)
        return made, [self._pool.submit(task) for task in tasks]

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def in_order(tasks: Iterable[Callable[[], _Made]], *, threads: int, ahead: int) -> Iterator[_Made]:
    """The results of tasks in their order, of which `ahead` are begun by threads before they are asked for."""
    if threads == 0:
        yield from (task() for task in tasks)
        return
    waiting: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
