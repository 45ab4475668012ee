"""Episodes that have been played, a line of a file each: a killed evaluation goes on, and several jobs share one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vjepa2cli.artifacts.latent_store import Shard
from vjepa2cli.planning.players import Job, Outcome

Place = tuple[str, str, int]
"""A task, a shift, and the number of an episode."""


def part_path(out: Path, shard: Shard) -> Path:
    """Where a job leaves its part of the report at `out`: `report-00003-of-00008.jsonl` beside `report.json`."""
    return out.with_name(f"{out.stem}-{shard.index:05d}-of-{shard.count:05d}.jsonl")


class Journal:
    """What has been played for a report, and the file to which more is added.

    The first line of a file says of which model, protocol and versions its episodes are; those of others are passed over. A file
    that is not yet whole ends in `.partial`. None may be written by two processes.
    """

    def __init__(self, out: Path, *, key: str, shard: Shard | None = None) -> None:
        """Read all that lies beside the report at `out`, of other jobs and of one that was killed; `key` says what fits."""
        self._path = part_path(out, shard) if shard is not None else out.with_name(f"{out.stem}.jsonl")
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        self._key = key
        self._file: IO[bytes] | None = None
        own, self._whole_bytes = _read(self._partial, key)
        self._known: dict[Place, Outcome] = {}
        for part in sorted(out.parent.glob(f"{out.stem}-*-of-*.jsonl*")):
            self._known |= _read(part, key)[0]
        self._known |= own
        self._own = set(own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def known(self) -> Mapping[Place, Outcome]:
        """What has been played."""
        return self._known

    def add(self, job: Job, outcome: Outcome) -> None:
        """Keep an episode."""
        place = place_of(job)
        self._known[place] = outcome
        if place in self._own:
            return
        self._own.add(place)
        self._write({"place": place, "row": outcome.row, "seconds": outcome.seconds})

    def keep(self) -> Path:
        """The file is whole: give it its name."""
        os.fsync(self._opened().fileno())
        self._partial.replace(self._path)
        return self._path

    def discard(self) -> None:
        """The report is written, and holds all of it."""
        self._partial.unlink(missing_ok=True)

    def _write(self, tree: dict[str, Any]) -> None:
        file = self._opened()
        file.write(json.dumps(tree).encode() + b"\n")
        file.flush()

    def _opened(self) -> IO[bytes]:
        """The file after its last whole line; one of other episodes is begun anew."""
        if self._file is None:
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("r+b" if self._whole_bytes else "wb")
            self._file.truncate(self._whole_bytes)
            self._file.seek(self._whole_bytes)
            if not self._whole_bytes:
                self._write({"key": self._key})
        return self._file


def place_of(job: Job) -> Place:
    """What tells an episode from all others of a report."""
    return job.task, job.shift, job.index


def _read(path: Path, key: str) -> tuple[dict[Place, Outcome], int]:
    """The episodes of a file and the bytes of its whole lines; none where it is of others or there is none."""
    if not path.is_file():
        return {}, 0
    found: dict[Place, Outcome] = {}
    size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                tree = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or (number == 0 and tree != {"key": key}):
                break
            if number:
                task, shift, index = tree["place"]
                found[task, shift, index] = Outcome(tree["row"], tree["seconds"])
            size += len(line)
    return found, size
