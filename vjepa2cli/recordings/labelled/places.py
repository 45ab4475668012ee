"""Where the files of a labelled set lie now, which is seldom where its table says."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vjepa2cli.errors import InputError

SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".MP4")


@dataclass
class Places:
    """Looks for files below `root`, or as the table names them where that is None; counts those that are nowhere."""

    table: Path
    root: Path | None
    found: int = 0
    missing: list[str] = field(default_factory=list)

    def of(self, *names: str) -> Path | None:
        """The first of several names that is a file, or a folder of frames; names without a suffix may have that of a video."""
        for name in names:
            for path in self._candidates(name):
                if path.exists():
                    self.found += 1
                    return path
        self.missing.append(names[0])
        return None

    def _candidates(self, name: str) -> Iterator[Path]:
        ends = ("",) if PurePosixPath(name).suffix else ("", *SUFFIXES)
        for base in self._bases(name):
            yield from (base.with_name(base.name + end) for end in ends)

    def _bases(self, name: str) -> Iterator[Path]:
        path = Path(name)
        if self.root is None:
            yield self.table.parent / path
            return
        yield self.root / path
        parts = path.parts[1:] if path.is_absolute() else path.parts
        # A table that was written elsewhere: whatever it names last is what is the same here.
        yield from (self.root.joinpath(*parts[start:]) for start in range(len(parts)))

    def require(self, *, drop: bool) -> None:
        """Raise InputError where files are missing; with `drop`, only where all are."""
        if not self.missing or (drop and self.found):
            return
        total = self.found + len(self.missing)
        where = "the folder of the table" if self.root is None else f"{self.root} and below"
        remedy = "give the folder that holds them with --root" if self.root is None else "give another --root"
        raise InputError(
            f"{self.table}: {len(self.missing)} of its {total} files are not there, such as {self.missing[0]}; looked in "
            f"{where}; {remedy}{'' if drop else ', or set missing=drop to go on without them'}"
        )
