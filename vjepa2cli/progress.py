"""How a step tells that it moves on; the command line draws it, a library caller may ignore it."""

from typing import Protocol


class Progress(Protocol):
    """One bar: `start` once, `advance` as units are done, `finish` at the end."""

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Begin a bar of `total` units of which `done` were done by an earlier run."""

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        """Move on by `count` units and show the newest `fields`, such as a loss."""

    def finish(self) -> None:
        """Close the bar."""


class SilentProgress:
    """A Progress that draws nothing."""

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Ignore the beginning."""

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        """Ignore the advance."""

    def finish(self) -> None:
        """Ignore the end."""


SILENT = SilentProgress()
