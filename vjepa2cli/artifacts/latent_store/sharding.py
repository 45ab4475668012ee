"""One store in several files: each process or job writes its own, and an index that names them all makes them one store.

The index refuses a member that is missing or is another one than it was made of. It holds an external link to each for
whoever opens it with something else.
"""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from vjepa2cli.artifacts.latent_store.binding import require_same
from vjepa2cli.artifacts.latent_store.header import SCHEMA
from vjepa2cli.artifacts.latent_store.reading import LatentStore
from vjepa2cli.artifacts.latent_store.writing import partial_path
from vjepa2cli.errors import ConfigError, StaleArtifactError
from vjepa2cli.files import replaced_atomically

_DIGITS = "[0-9]" * 5


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `i/n`; raises ConfigError where it is none."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ConfigError(f"--shard: {text!r} is not i/n with i from 0 to n - 1, such as 0/8")
        return cls(int(index), int(count))

    def of(self, lengths: Sequence[int]) -> range:
        """The episodes of this part: consecutive ones, of about as many steps as those of every other part."""
        ends = np.cumsum(lengths)
        middles = ends - np.asarray(lengths) / 2
        parts = np.minimum(middles * self.count // ends[-1], self.count - 1)
        return range(int(np.searchsorted(parts, self.index)), int(np.searchsorted(parts, self.index, side="right")))


def member_path(path: Path, shard: Shard) -> Path:
    """Where a part of the store at `path` lies: `latents-00003-of-00008.h5` beside `latents.h5`."""
    return path.with_name(f"{path.stem}-{shard.index:05d}-of-{shard.count:05d}{path.suffix}")


def write_index(path: Path, members: Sequence[Path]) -> None:
    """Make one store of whole members, whose episodes follow each other; raises StaleArtifactError where they do not agree."""
    stores = [LatentStore.open(member) for member in members]
    about = [{"name": member.name, "digest": store.digest} for member, store in zip(members, stores, strict=True)]
    for member, store in zip(members, stores, strict=True):
        store.close()
        require_same(member, store.header, stores[0].header)
    with replaced_atomically(path) as partial, h5py.File(partial, "w") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["members"] = json.dumps(about)
        for member in members:
            file[f"members/{member.stem}"] = h5py.ExternalLink(member.name, "/")


def find_shards(path: Path) -> list[Shard]:
    """The parts that a store was begun in, none where it is one file; raises StaleArtifactError where there are several ways."""
    counts = sorted({int(file.name.removesuffix(".partial").removesuffix(path.suffix)[-5:]) for file in _members(path)})
    if len(counts) > 1:
        raise StaleArtifactError(f"{path}: was begun in {counts[0]} parts and in {counts[1]}; use --replace to start over")
    return [Shard(index, count) for count in counts for index in range(count)]


def remove(path: Path, shard: Shard | None = None) -> None:
    """Remove a store and what was begun of it; with a `shard` what other jobs may be writing beside it is left alone."""
    others = [] if shard is None else [member_path(path, Shard(index, shard.count)) for index in range(shard.count)]
    others = [other for other in others if shard is not None and other != member_path(path, shard)]
    kept = {*others, *map(partial_path, others)}
    for file in [path, partial_path(path), *_members(path)]:
        if file not in kept:
            file.unlink(missing_ok=True)


def _members(path: Path) -> list[Path]:
    """Files that are parts of a store, whole or begun."""
    pattern = f"{glob.escape(path.stem)}-{_DIGITS}-of-{_DIGITS}{glob.escape(path.suffix)}"
    return [file for end in ("", ".partial") for file in path.parent.glob(pattern + end)]
