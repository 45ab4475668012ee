"""Robot episodes: frames and rows are matched by number, since headers are not trusted for robots."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.artifacts.video_store import Description, EntryWriter
from vjepa2cli.data.file_faults import refuse_absent
from vjepa2cli.data.looks import LooksMeter
from vjepa2cli.data.video import DAMAGED, VideoInfo
from vjepa2cli.errors import RecordingError, VideoError
from vjepa2cli.files import digest_bytes, digest_file
from vjepa2cli.ingestion.footage import opened
from vjepa2cli.ingestion.pieces import too_short
from vjepa2cli.ingestion.workers import Beat
from vjepa2cli.recordings.episode import Footage, Recording
from vjepa2cli.recordings.readers import described_robot
from vjepa2cli.recordings.sources import Source
from vjepa2cli.settings import IngestConfig
from vjepa2cli.settings.robot import RobotConfig

# Headers of videos that differ from the rows' rate by more are said to.
_RATE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Take:
    """One camera of an episode, read but for its pictures, and the robot that it is of."""

    recording: Recording
    footage: Footage
    robot: RobotConfig


def read_take(source: Source, config: IngestConfig) -> Take:
    """Read what a source names; raises RecordingError where the robot is not described or the camera is not there."""
    assert source.reader is not None
    assert source.camera is not None
    if not source.member:
        # What could not be listed is refused with the reason.
        source.reader.list_episodes(source.path, config.robot)
    robot = described_robot(source.reader, source.path, source.member, config.robot)
    recording = source.reader.read(source.path, source.member, robot)
    if source.camera not in recording.cameras:
        known = ", ".join(recording.cameras) or "none"
        raise RecordingError(f"{source.path}: no video of camera {source.camera} (there: {known}); set cameras to one of these")
    return Take(recording, recording.cameras[source.camera], robot)


def digest_take(take: Take, source: Source, beat: Beat) -> str:
    """Content of the files that an entry is made of, and which of their episodes it is."""
    files = list(dict.fromkeys([take.footage.path, *take.recording.files]))
    refuse_absent(take.footage.path)
    try:
        digests = [_digest(path, path.stat().st_mtime_ns, path.stat().st_size, beat) for path in files]
    except PermissionError as error:
        raise VideoError(f"{error.filename}: no permission to read it; change its mode or owner") from None
    member = [source.member.encode()] if source.member else []
    return digest_bytes(*(digest.encode() for digest in digests), *member)


@lru_cache(maxsize=256)
def _digest(path: Path, _changed: int, _size: int, beat: Beat) -> str:
    """Remembered, for many episodes may lie in one file."""
    return digest_file(path, beat)


def write_take(entry: EntryWriter, source: Source, take: Take, *, digest: str, config: IngestConfig, beat: Beat) -> None:
    """Write the frames that the config wants, with the states and the commands of their rows."""
    # With torch, which nobody waits for who ingests videos alone.
    from vjepa2cli.data.robot_numbers import remarks, to_states

    recording, robot, where = take.recording, take.robot, str(source.path)
    states = to_states(robot, recording.states, where=where)
    rate, notes = _rate(recording, robot, source)
    notes += [*recording.notes, *remarks(robot, recording.states)]
    wanted = _wanted_rows(len(states), rate, config, source)
    meter, seen = LooksMeter(), 0
    with opened(take.footage, robot.cameras.get(source.camera or ""), short_side=config.short_side, notes=notes) as reel:
        for index, pixels in enumerate(reel.frames):
            beat()
            seen = index + 1
            if index in wanted:
                entry.append(index / rate, index, pixels)
                meter.add(index / rate, pixels)
            if entry.num_frames == config.max_frames:
                break
        info = reel.info
    if any(note.startswith(DAMAGED) for note in notes):
        raise RecordingError(
            f"{take.footage.path}: frames are lost in its middle, so frames and states cannot be matched; copy it again"
        )
    if entry.num_frames != config.max_frames:
        notes += _unequal(seen, len(states), take.footage)
    notes += _header(info, rate)
    if (reason := too_short(entry.num_frames, config)) is not None:
        raise VideoError(f"{take.footage.path}: {reason}")
    looks = meter.looks()
    if looks.black == 1:
        raise RecordingError(f"{take.footage.path}: camera {source.camera} shows nothing but black; choose another of cameras")
    rows: dict[str, NDArray[Any]] = {"states": states[entry.indices]}
    if recording.actions is not None:
        rows["actions"] = _commands(robot, recording.actions, entry.indices, where=where)
    if take.footage.extrinsics is not None:
        rows["extrinsics"] = take.footage.extrinsics[entry.indices]
    description = Description(
        source.name,
        digest,
        source.episode,
        config.fps or rate,
        robot=recording.robot if config.robot is None and recording.robot else robot.name,
        camera=source.camera,
        instruction=recording.instruction,
        rotation=info.rotation if info else 0,
        mirrored=info.mirrored if info else False,
        pixel_aspect=info.pixel_aspect if info else 1.0,
        black=looks.black,
        frozen=looks.frozen,
        signature=looks.signature,
        notes=tuple(notes),
    )
    entry.finish(description, rows=rows)


def _rate(recording: Recording, robot: RobotConfig, source: Source) -> tuple[float, list[str]]:
    if recording.rate is not None:
        return recording.rate, []
    if robot.rate is None:
        raise RecordingError(f"{source.path}: neither it nor robot {robot.name} says its rate; add 'rate: 15', in rows a second")
    said = f"the recording names no rate; the {robot.rate:g} Hz of robot {robot.name} are assumed"
    return robot.rate, [said] if source.reader is not None and source.reader.usual_robot else []


def _unequal(frames: int, rows: int, footage: Footage) -> list[str]:
    """What is to be said where frames and rows are not of one number; refuses more than one too many."""
    if frames == rows:
        return []
    difference = f"{frames} frames for {rows} states"
    if abs(frames - rows) > 1:
        raise RecordingError(f"{footage.path}: {difference}; frames and states must be of one recording, one frame a row")
    return [f"{difference}; the one too many at the end is left out"]


def _header(info: VideoInfo | None, rate: float) -> list[str]:
    if info is None or abs(info.fps / rate - 1) < _RATE_TOLERANCE:
        return []
    return [f"its video's header claims {info.fps:.4g} frames a second, its rows run at {rate:.4g}; frames are matched by number"]


def _commands(robot: RobotConfig, recorded: NDArray[Any], indices: Sequence[int], *, where: str) -> NDArray[np.float32]:
    """Commands of the kept rows: targets as they are, changes summed and speeds averaged up to the next kept row."""
    from vjepa2cli.data.robot_numbers import command_numbers, to_commands

    commands = to_commands(robot, recorded, where=where)
    kept = np.asarray(indices)
    if robot.action is None or robot.action.numbers is None:
        return np.asarray(commands[kept])
    ends = np.append(kept[1:], min(len(commands), kept[-1] + (kept[1] - kept[0] if len(kept) > 1 else 1)))
    sums = np.concatenate([np.zeros((1, commands.shape[1])), np.cumsum(commands, axis=0, dtype=np.float64)])
    between = sums[ends] - sums[kept]
    meanings = [number.meaning for number in command_numbers(robot)]
    columns = {"absolute": commands[kept], "delta": between, "velocity": between / (ends - kept)[:, None]}
    return np.stack([columns[meaning][:, place] for place, meaning in enumerate(meanings)], axis=1).astype(np.float32)


def _wanted_rows(num_rows: int, rate: float, config: IngestConfig, source: Source) -> frozenset[int]:
    """Rows that are kept, at the config's rate."""
    if config.fps is None:
        return frozenset(range(num_rows))
    if config.fps > rate * 1.001:
        raise RecordingError(f"{source.path}: runs at {rate:g} Hz, below fps {config.fps:g}; states do not repeat, lower fps")
    # A thousandth of a row of slack, so that rates which divide are not thrown off by rounding.
    rows = np.floor(np.arange(num_rows) * (rate / config.fps) + 1e-3).astype(int)
    return frozenset(int(row) for row in rows if row < num_rows)
