"""Robot episodes: frames and rows are matched by number, since headers are not trusted for robots."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import Description, EntryWriter
from vjepa2cli.data.looks import LooksMeter
from vjepa2cli.data.video import DAMAGED, open_video
from vjepa2cli.errors import RecordingError, VideoError
from vjepa2cli.ingestion.pieces import too_short
from vjepa2cli.ingestion.workers import Beat
from vjepa2cli.recordings.episode import Episode
from vjepa2cli.recordings.sources import Source
from vjepa2cli.settings import IngestConfig

# The raw DROID release holds no rate; its rows run at this one, while the headers of its videos claim another.
_DROID_RATE = 15.0


def movie_of(episode: Episode, source: Source) -> Path:
    """The video file of the source's camera; raises RecordingError where there is none."""
    assert source.camera is not None
    if source.camera not in episode.videos:
        known = ", ".join(episode.videos) or "none"
        raise RecordingError(f"{source.path}: no video of camera {source.camera} (there: {known}); set cameras to one of these")
    return episode.videos[source.camera]


def write_episode(
    entry: EntryWriter, source: Source, episode: Episode, video: Path, *, digest: str, config: IngestConfig, beat: Beat
) -> None:
    """Frames and rows are matched by number: the header's rate and timestamps are not trusted for robots."""
    notes: list[str] = []
    rate = episode.rate
    if rate is None:
        rate = _DROID_RATE
        notes.append(f"the recording names no rate; DROID's {rate:g} Hz is assumed")
    wanted = _wanted_rows(len(episode.states), rate, config, source)
    frames_seen = 0
    meter = LooksMeter()
    with open_video(video, notes=notes) as file:
        for _, index, pixels in file.frames(short_side=config.short_side):
            beat()
            frames_seen = index + 1
            if index in wanted:
                entry.append(index / rate, index, pixels)
                meter.add(index / rate, pixels)
            if entry.num_frames == config.max_frames:
                break
    if any(note.startswith(DAMAGED) for note in notes):
        raise RecordingError(f"{video}: frames are lost in its middle, so frames and states cannot be matched; copy it again")
    if entry.num_frames != config.max_frames and frames_seen != len(episode.states):
        difference = f"{frames_seen} frames for {len(episode.states)} states"
        if abs(frames_seen - len(episode.states)) > 1:
            raise RecordingError(f"{video}: {difference}; frames and states must be of one recording, one frame a row")
        notes.append(f"{difference}; the one too many at the end is left out")
    if (reason := too_short(entry.num_frames, config)) is not None:
        raise VideoError(f"{video}: {reason}")
    looks = meter.looks()
    rows: dict[str, NDArray[Any]] = {"states": episode.states[entry.indices]}
    if episode.actions is not None:
        rows["actions"] = episode.actions[entry.indices]
    description = Description(
        source.name,
        digest,
        source.episode,
        config.fps or rate,
        robot=episode.robot,
        camera=source.camera,
        instruction=episode.instruction,
        rotation=file.info.rotation,
        mirrored=file.info.mirrored,
        pixel_aspect=file.info.pixel_aspect,
        black=looks.black,
        frozen=looks.frozen,
        signature=looks.signature,
        notes=tuple(notes),
    )
    entry.finish(description, rows=rows)


def _wanted_rows(num_rows: int, rate: float, config: IngestConfig, source: Source) -> frozenset[int]:
    """Rows that are kept, at the config's rate."""
    if config.fps is None:
        return frozenset(range(num_rows))
    if config.fps > rate * 1.001:
        raise RecordingError(f"{source.path}: runs at {rate:g} Hz, below fps {config.fps:g}; states do not repeat, lower fps")
    # A thousandth of a row of slack, so that rates which divide are not thrown off by rounding.
    rows = np.floor(np.arange(num_rows) * (rate / config.fps) + 1e-3).astype(int)
    return frozenset(int(row) for row in rows if row < num_rows)
