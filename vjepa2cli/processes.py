"""Work in several processes that are started once, keep what they opened, and end with the one that started them."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Any, Generic, TypeVar

from vjepa2cli.errors import ArtifactError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Crew(Generic[_Item, _Result]):
    """So many processes: each calls `start` once, and what that returns for every item that it is given.

    Both must be found by their names in a module. One process is this one, and nothing is started.
    """

    def __init__(self, start: Callable[[], Callable[[_Item], _Result]], *, processes: int, on_loss: str) -> None:
        """`on_loss` is what the user is told where a process was killed."""
        self._start, self._on_loss = start, on_loss
        self._work: Callable[[_Item], _Result] | None = None
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(start,))

    def __enter__(self) -> "Crew[_Item, _Result]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._work = None
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def each(self, items: Iterable[_Item]) -> Iterator[tuple[_Item, _Result]]:
        """Items with their results, as they are done; raises ArtifactError where a process was killed."""
        if self._pool is None:
            self._work = self._work or self._start()
            for item in items:
                yield item, self._work(item)
            return
        waiting: dict[Future[_Result], _Item] = {self._pool.submit(_do, item): item for item in items}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool:
            raise ArtifactError(self._on_loss) from None


_work: Callable[[Any], Any] | None = None


def _begin(start: Callable[[], Callable[[Any], Any]]) -> None:
    """Do once what this process needs for every item, and end the process with its parent, however that one ends."""
    global _work  # noqa: PLW0603 - a pool's initializer has no other place to leave what its tasks need
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)
