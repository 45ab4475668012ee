"""From what a user names to what can be ingested, each once, under names that can move: videos, images, cameras of episodes."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vjepa2cli.errors import InputError
from vjepa2cli.files import digest_bytes
from vjepa2cli.recordings.droid import MOVIES
from vjepa2cli.recordings.episode import Reader
from vjepa2cli.recordings.manifests import SUFFIXES, LabelledSpan, Listed, Row, read_manifest
from vjepa2cli.recordings.places import Place, Wanted, is_pattern, pattern_base, search
from vjepa2cli.recordings.spans import WHOLE, Span, joined


@dataclass(frozen=True)
class Share:
    """How often the members of a group are drawn, all told, beside other groups; a group is what one row of a table names."""

    group: str
    weight: float


@dataclass(frozen=True)
class Part:
    """A stretch of a source that is stored, and its share of the draws."""

    span: Span = WHOLE
    share: Share | None = None


@dataclass(frozen=True)
class Source:
    """One video or image file, or one camera of an episode: `member` of what `reader` reads at `path`.

    `name` is relative to what the user named, `root`; `episode` groups what must share a split. `windows` holds the labelled
    stretches by name of the video file, or is None where no table of labels was given.
    """

    name: str
    path: Path
    root: str
    episode: str = ""
    camera: str | None = None
    reader: Reader | None = None
    member: str = ""
    is_image: bool = False
    parts: tuple[Part, ...] = (Part(),)
    windows: Mapping[str, tuple[LabelledSpan, ...]] | None = None

    @property
    def key(self) -> str:
        """Readable, safe as a file name, and different for different names."""
        return key_of(self.name)


@dataclass(frozen=True)
class Found:
    """All sources sorted by name, folders whose images were passed over because they hold videos too, remarks on sets."""

    sources: list[Source]
    images_passed_over: dict[str, int]
    remarks: list[dict[str, str]]


def key_of(name: str) -> str:
    """A name as part of a path: readable, and different for different names."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name).strip('-')[-60:]}-{digest}"


def find_sources(given: Sequence[Path], wanted: Wanted, *, labels: Path | None = None) -> Found:
    """List the sources in files, folders, patterns, episodes and tables of videos.

    `labels` and the tables among `given` label whatever sources they mention; what only a table mentions is a source too where
    the table is in `given`, and only the stretches that it names are stored. A row may name a folder, a pattern or another table;
    its weight is then shared out evenly. Raises InputError where nothing is found, where no labelled video is among the sources,
    and where only some sources have a weight.
    """
    searched = _Search(wanted)
    tables = [path for path in given if _is_table(path)]
    for root in given:
        if root not in tables:
            searched.add_place(root)
    for table in tables:
        searched.add_table(table)
    listed_videos = [] if labels is None else read_manifest(labels, need_labels=True)
    for listed in listed_videos:
        searched.label(listed.path, listed.labelled, listed.episode)
    sources = searched.finish()
    if not sources:
        raise InputError(f"{', '.join(map(str, given))}: holds no video, no image and no recording of a robot")
    if labels is not None and not any(source.windows for source in sources):
        raise InputError(
            f"{labels}: none of its {len(listed_videos)} videos is among the sources; its paths are relative to its folder"
        )
    unweighted = [source.name for source in sources for part in source.parts if part.share is None]
    if unweighted and len(unweighted) < sum(len(source.parts) for source in sources):
        raise InputError(f"{unweighted[0]}: has no weight, and other sources have one; list it in a table with its weight")
    remarks = [{"source": name, "note": note} for name, notes in sorted(searched.remarks.items()) for note in notes]
    return Found(sources, searched.passed_over, remarks)


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not is_pattern(path)


@dataclass
class _Search:
    """Gathers sources by where they really lie, the first name winning, and what tables say about them."""

    wanted: Wanted
    found: dict[tuple[Path, str, str | None], Source] = field(default_factory=dict)
    windows: dict[Path, tuple[LabelledSpan, ...]] = field(default_factory=dict)
    episodes: dict[Path, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_place(self, root: Path) -> None:
        places = search(root, self.wanted)
        if places.images_passed_over:
            self.passed_over[str(root)] = places.images_passed_over
        self.remarks |= places.remarks
        for place in places.found:
            self._add(place, place.name.as_posix(), root=str(root.resolve()), parts=(Part(),))

    def add_table(self, table: Path, *, under: Share | None = None, root: str | None = None) -> None:
        """Add what a table lists; `under` is the share of the row of another table that names this one."""
        items = read_manifest(table)
        if under is not None and any(row.weight is not None for item in items for row in item.rows):
            raise InputError(f"{table}: has weights of its own, and the table that names it gives it one; keep one of them")
        root = root or str(table.resolve())
        for item in items:
            if _is_table(item.path):
                self.add_table(item.path, under=under or _share(table, _only_row(table, item)), root=root)
            elif item.path.is_file() or not (item.path.is_dir() or is_pattern(item.path)):
                self._add_listed_file(table, item, under=under, root=root)
            else:
                self._add_listed_folder(table, item, under=under, root=root)

    def label(self, path: Path, windows: tuple[LabelledSpan, ...], episode: str | None) -> None:
        """Note what a table says about a file."""
        self.windows[path.resolve()] = windows
        if episode is not None:
            self.episodes[path.resolve()] = episode

    def finish(self) -> list[Source]:
        """The sources, sorted, with their windows and groups."""
        named = _with_unique_names(list(self.found.values()), self.wanted.cameras)
        grouped = [replace(source, episode=self._episode(source)) for source in named]
        if not self.windows:
            return grouped
        return [replace(source, windows=self._windows_of(source)) for source in grouped]

    def _add(self, place: Place, name: str, *, root: str, parts: tuple[Part, ...]) -> None:
        source = Source(
            name,
            place.path,
            root,
            camera=place.camera,
            reader=place.reader,
            member=place.member,
            is_image=place.is_image,
            parts=parts,
        )
        self.found.setdefault((place.path.resolve(), place.member, place.camera), source)

    def _add_listed_file(self, table: Path, item: Listed, *, under: Share | None, root: str) -> None:
        self.label(item.path, item.labelled, item.episode)
        in_episode = {path for path, _, camera in self.found if camera is not None} & set(item.path.resolve().parents)
        if not in_episode:
            place = Place(Path(item.name), item.path, is_image=item.path.suffix.lower() in self.wanted.images)
            parts = tuple(
                Part(span, under or _share_of(table, item, span))
                for span in joined([row.span for row in item.rows], where=item.name)
            )
            self._add(place, item.name, root=root, parts=parts)

    def _add_listed_folder(self, table: Path, item: Listed, *, under: Share | None, root: str) -> None:
        row = _only_row(table, item)
        if not row.span.is_whole:
            raise InputError(f"{table}: line {row.line}: {item.name} stands for several videos, which have no start and end")
        base = pattern_base(Path(item.name)) if is_pattern(item.path) else Path(item.name)
        for place in search(item.path, self.wanted).found:
            if row.label is not None:
                self.label(place.path, (LabelledSpan(WHOLE, row.label),), row.episode)
            self._add(place, (base / place.name).as_posix(), root=root, parts=(Part(WHOLE, under or _share(table, row)),))

    def _episode(self, source: Source) -> str:
        """An episode folder groups its cameras; a lone video is its own group, unless a table says otherwise."""
        return self.episodes.get(source.path.resolve()) or source.name.partition("#")[0]

    def _windows_of(self, source: Source) -> dict[str, tuple[LabelledSpan, ...]]:
        path = source.path.resolve()
        files = [path] if source.camera is None else sorted((path / MOVIES).glob("*"))
        return {file.name: self.windows[file.resolve()] for file in files if file.resolve() in self.windows}


def _only_row(table: Path, item: Listed) -> Row:
    if len(item.rows) > 1:
        raise InputError(f"{table}: line {item.rows[1].line}: {item.name} stands for several videos and is listed twice")
    return item.rows[0]


def _share(table: Path, row: Row) -> Share | None:
    if row.weight is None:
        return None
    return Share(digest_bytes(f"{table.resolve()}:{row.line}".encode(errors="surrogateescape"))[:16], row.weight)


def _share_of(table: Path, item: Listed, part: Span) -> Share | None:
    """The share of a stretch, which the rows that it is made of must agree upon."""
    rows = [row for row in item.rows if row.span.start >= part.start and (part.stop is None or row.span.start < part.stop)]
    if len({row.weight for row in rows}) > 1:
        raise InputError(
            f"{table}: line {rows[1].line}: rows of {item.name} overlap or touch but differ in weight; give them one weight"
        )
    return _share(table, rows[0])


def _with_unique_names(found: Sequence[Source], cameras: Sequence[str]) -> list[Source]:
    """Name the camera where there are several, and prepend parent folders to names that would be equal."""
    depth = [0] * len(found)
    while True:
        names = [_name(source, above, several=len(cameras) > 1) for source, above in zip(found, depth, strict=True)]
        counts = Counter(names)
        equal = [index for index, name in enumerate(names) if counts[name] > 1]
        if not equal:
            named = [replace(source, name=name) for source, name in zip(found, names, strict=True)]
            return sorted(named, key=lambda source: source.name)
        for index in equal:
            depth[index] += 1
            if depth[index] > len(found[index].path.absolute().parts):
                raise InputError(f"{found[index].path}: another source has the same name; ingest their common parent folder")


def _name(source: Source, depth: int, *, several: bool) -> str:
    camera = f"#{source.camera}" if several and source.camera else ""
    above = (source.path.absolute() / source.member).parts[: -len(Path(source.name).parts)]
    return Path(*above[max(0, len(above) - depth) :], source.name).as_posix() + camera
