"""Taking in one source: its frames into the store, piece by piece, or the reason why not."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from vjepa2cli import config as configs
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter, Window, plain
from vjepa2cli.data.file_faults import refuse_absent
from vjepa2cli.data.looks import LooksMeter
from vjepa2cli.data.video import VideoInfo, open_video, read_image, resize
from vjepa2cli.errors import InputError, RecordingError, VideoError
from vjepa2cli.files import digest_file
from vjepa2cli.ingestion.episodes import Take, digest_take, read_take, write_take
from vjepa2cli.ingestion.pieces import Frame, Piece, measured_rate, part_name, pieces, too_short
from vjepa2cli.ingestion.workers import Beat, Busy
from vjepa2cli.recordings.manifests import LabelledSpan
from vjepa2cli.recordings.sources import Part, Source, key_of
from vjepa2cli.recordings.spans import stored_frames
from vjepa2cli.settings import IngestConfig

Refusals = list[dict[str, str]]
_ENDS_BEFORE = "the video ends before this stretch; mend the table"


@dataclass(frozen=True)
class Task:
    """Takes sources into one store; it is sent to worker processes."""

    out: Path
    config: IngestConfig

    def __call__(self, source: Source, beat: Beat) -> Refusals | Busy:
        """Bring a source into the store unless it is there; returns what of it is refused, with reasons."""
        return _Taking(VideoStoreWriter.open(self.out, configs.to_tree(self.config)), source, self.config, beat).run()


class _Taking:
    """The work at one source."""

    def __init__(self, writer: VideoStoreWriter, source: Source, config: IngestConfig, beat: Beat) -> None:
        self._writer, self._source, self._config, self._beat = writer, source, config, beat
        self._entries: dict[str, Part] = {}
        self._refused: Refusals = []
        self._unplaced: Refusals = []
        self._met: set[Part] = set()
        self._digest = ""

    def run(self) -> Refusals | Busy:
        try:
            take = None if self._source.camera is None else read_take(self._source, self._config)
            video = self._source.path if take is None else take.footage.path
            self._digest = _digest(video, self._beat) if take is None else digest_take(take, self._source, self._beat)
        except (VideoError, RecordingError) as error:
            return self._refuse(error, self._before())
        before = self._before()
        if self._pass_over(before):
            return self._keep(video, before)
        # Held until the record is there: entries that none names and nobody is at are what a killed writer left.
        with self._writer.claimed(self._source.key) as is_ours:
            if not is_ours:
                return Busy()
            before = self._before()
            if not self._pass_over(before):
                if before["entries"]:
                    # What replaces them may be part old and part new where a writer is killed meanwhile.
                    self._writer.remove_record(self._source.key)
                try:
                    self._write(take)
                except (VideoError, RecordingError) as error:
                    return self._refuse(error, before)
            return self._keep(video, before)

    def _refuse(self, error: Exception, before: dict[str, Any]) -> Refusals:
        for key in self._entries:
            self._writer.remove(key)
        self._entries, self._digest = {}, ""
        self._refused = [{"source": self._source.name, "reason": _without_path(str(error), self._source)}]
        return self._record(before)

    def _keep(self, video: Path, before: dict[str, Any]) -> Refusals:
        self._update(video)
        return self._record(before)

    def _record(self, before: dict[str, Any]) -> Refusals:
        for key in before["entries"].keys() - self._entries.keys():
            self._writer.remove(key)
        entries = {key: str(part.span) for key, part in sorted(self._entries.items())}
        known = {"root": self._source.root, "entries": entries, "refused": self._refused, "unplaced": self._unplaced}
        self._writer.record(self._source.key, self._identity() | known)
        return self._refused

    def _before(self) -> dict[str, Any]:
        return self._writer.find_record(self._source.key) or {"entries": {}}

    def _identity(self) -> dict[str, Any]:
        """What must be unchanged for a source to be passed over."""
        parts = sorted(str(part.span) for part in self._source.parts)
        return {"source": self._source.name, "source_digest": self._digest, "parts": parts}

    def _pass_over(self, before: dict[str, Any]) -> bool:
        """Whether the source was taken in before, with the same content and stretches, and all its entries are still there.

        Two folders that are ingested one after the other may hold different videos of one name, which is an error.
        """
        found = before["entries"]
        if found and before["root"] != self._source.root and before["source_digest"] != self._digest:
            raise InputError(
                f"{self._writer.path}: holds another {self._source.name}, of {before['root']}; ingest both in one command, "
                "or give another --out"
            )
        same = all(before.get(name) == value for name, value in self._identity().items())
        if not (same and found and all(self._writer.find(key) is not None for key in found)):
            return False
        parts = {str(part.span): part for part in self._source.parts}
        self._refused = before["refused"]
        self._entries = {key: parts[span] for key, span in found.items()}
        return True

    def _write(self, take: Take | None) -> None:
        if self._source.is_image:
            self._write_image()
        elif take is None:
            self._write_video()
        else:
            with self._writer.entry(self._source.key) as entry:
                write_take(entry, self._source, take, digest=self._digest, config=self._config, beat=self._beat)
            self._entries[self._source.key] = self._source.parts[0]

    def _write_image(self) -> None:
        source, short_side = self._source, self._config.short_side
        pixels = read_image(source.path)
        height, width, _ = pixels.shape
        scale = short_side / min(height, width)
        pixels = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))), method="blocks")
        meter = LooksMeter()
        meter.add(0.0, pixels)
        looks = meter.looks()
        with self._writer.entry(source.key) as entry:
            entry.append(0.0, 0, pixels)
            about = Description(source.name, self._digest, source.episode, 1.0, still=True)
            entry.finish(replace(about, black=looks.black, signature=looks.signature))
        self._entries[source.key] = source.parts[0]

    def _write_video(self) -> None:
        source, config = self._source, self._config
        notes: list[str] = []
        cuts: list[float] = []
        with open_video(source.path, notes=notes) as video:
            for piece, group in groupby(pieces(video, source, config, cuts=cuts), key=itemgetter(0)):
                self._write_piece(piece, (frame for _, frame in group), video.info, notes=notes, cuts=cuts)
        for part in set(source.parts) - self._met:
            self._refused.append(
                {"source": part_name(source, part), "reason": "the video ends before this stretch; mend the table"}
            )
        if not self._entries and len(self._refused) == 1:
            raise VideoError(f"{source.path}: {self._refused[0]['reason']}")
        self._refused.sort(key=itemgetter("source"))

    def _write_piece(
        self, piece: Piece, frames: Iterator[Frame], info: VideoInfo, *, notes: list[str], cuts: list[float]
    ) -> None:
        self._met.add(piece.part)
        meter = LooksMeter()
        with self._writer.entry(key_of(piece.name)) as entry:
            for time, index, pixels in frames:
                entry.append(time, index, pixels)
                meter.add(time, pixels)
                self._beat()
            if (reason := too_short(entry.num_frames, self._config)) is not None:
                self._refused.append({"source": piece.name, "reason": reason})
                return
            looks = meter.looks()
            shots = f"shots begin at {', '.join(f'{cut:.2f}' for cut in cuts)} s"
            entry.finish(
                Description(
                    piece.name,
                    self._digest,
                    self._source.episode,
                    self._config.fps or measured_rate(entry.timestamps, info.fps),
                    rotation=info.rotation,
                    mirrored=info.mirrored,
                    pixel_aspect=info.pixel_aspect,
                    black=looks.black,
                    frozen=looks.frozen,
                    signature=looks.signature,
                    notes=(*notes, shots) if cuts and self._config.shots == "report" else tuple(notes),
                )
            )
        self._entries[key_of(piece.name)] = piece.part

    def _update(self, video: Path) -> None:
        """Bring up to date what tables say of the finished entries: their shares, their labelled windows, their group."""
        windows = self._source.windows
        labelled = () if windows is None else windows.get(video.name, ())
        placed: set[LabelledSpan] = set()
        for key, part in self._entries.items():
            changes: dict[str, Any] = {"share": None if part.share is None else asdict(part.share)}
            if windows is not None:
                found = self._stored_windows(key, labelled) if labelled else {}
                placed |= found.keys()
                changes |= {"windows": [plain(window) for window in found.values()], "episode": self._source.episode}
            self._writer.update(key, changes)
        self._unplaced = [
            {"source": f"{self._source.name}@{item.span}", "reason": f"labelled {item.label!r}, but not all of it is stored"}
            for item in labelled
            if item not in placed
        ]

    def _stored_windows(self, key: str, labelled: Sequence[LabelledSpan]) -> dict[LabelledSpan, Window]:
        """Windows in stored frames; those that reach beyond what is stored are left out, for their motion is not all there."""
        indices, timestamps = self._writer.indices(key), self._writer.timestamps(key)
        fps = (self._writer.find(key) or {})["fps"]
        places = {item: stored_frames(item.span, indices=indices, timestamps=timestamps, fps=fps) for item in labelled}
        return {item: Window(*place, item.label) for item, place in places.items() if place is not None}


def _digest(video: Path, beat: Beat) -> str:
    refuse_absent(video)
    try:
        return digest_file(video, beat)
    except PermissionError:
        raise VideoError(f"{video}: no permission to read it; change its mode or owner") from None


def _without_path(message: str, source: Source) -> str:
    """The reason alone: where the file lies differs from machine to machine."""
    for place in (f"{source.path}: ", f"{source.path}/"):
        message = message.removeprefix(place)
    return message
