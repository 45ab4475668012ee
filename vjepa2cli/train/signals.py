"""Signals that ask a training to end: noticed at once, answered at the end of a step, when every process can save."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

ASKING = (signal.SIGTERM, signal.SIGUSR1)
"""What batch systems send before they kill: SIGTERM, and SIGUSR1 where `--signal=USR1@SECONDS` asks for it."""


class StopRequest:
    """A context in which the signals are noted, once and for all; in a thread that is not the main one none is."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {asking: signal.signal(asking, self._note) for asking in ASKING}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for asking, before in self._before.items():
            signal.signal(asking, before)
