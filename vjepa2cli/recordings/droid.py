"""The raw DROID layout: `trajectory.h5`, `metadata_*.json` and `recordings/MP4/<serial>.mp4` in one folder an episode.

Source: https://droid-dataset.github.io, the raw release.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import RecordingError
from vjepa2cli.files import replaced_atomically, write_json
from vjepa2cli.recordings.arrays import numbers_among, read_rows
from vjepa2cli.recordings.episode import CAMERAS, Camera, Episode, Footage, Listing, Recording
from vjepa2cli.recordings.folders import walk_folders
from vjepa2cli.settings.robot import RobotConfig

_TRAJECTORY = "trajectory.h5"
MOVIES = Path("recordings") / "MP4"
_METADATA_NAMES: dict[Camera, tuple[str, str]] = {
    "exterior_1": ("ext1_cam_serial", "left_mp4_path"),
    "exterior_2": ("ext2_cam_serial", "right_mp4_path"),
    "wrist": ("wrist_cam_serial", "wrist_mp4_path"),
}
_SERIALS: dict[Camera, str] = {"exterior_1": "10000001", "exterior_2": "10000002", "wrist": "10000003"}


class VideoWriter(Protocol):
    """Writes frames uint8 [F, Y, X, 3] RGB to a video file."""

    def __call__(self, path: Path, frames: NDArray[np.uint8], *, fps: float) -> None:
        """Write `frames` to `path` at `fps`."""


def is_episode(folder: Path) -> bool:
    """Whether a folder is laid out as one episode; its trajectory may still be missing or damaged."""
    return (folder / _TRAJECTORY).is_file() or (folder / MOVIES).is_dir()


class DroidReader:
    """Reads episode folders in the raw DROID layout, which says itself what its numbers are."""

    layout = "DROID"
    usual_robot: str | None = "droid"

    def recognises(self, path: Path) -> bool:
        """A folder with a trajectory or with movies."""
        return is_episode(path)

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """The folder itself."""
        return Listing(("",))

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """Every array of the trajectory that could be rows of numbers."""
        with _trajectory_of(path) as file:
            return numbers_among(_shapes(file))

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """The arrays that the robot's description names; cameras are named as the layout does."""
        where = str(path / _TRAJECTORY)
        metadata = _read_metadata(path)
        with _trajectory_of(path) as file:
            shapes = _shapes(file)
            states = read_rows(shapes, lambda key: file[key][()], robot.state.keys, where=where)
            keys = () if robot.action is None else robot.action.keys
            there = [key for key in keys if key in shapes]
            actions = (
                read_rows(shapes, lambda key: file[key][()], keys, where=where) if keys and len(there) == len(keys) else None
            )
            rate = metadata.get("rate", file.attrs.get("fps"))
            extrinsics: dict[str, NDArray[np.float32] | None] = {
                camera: _extrinsics(file, metadata, camera, len(states)) for camera in CAMERAS
            }
        if actions is not None and len(actions) != len(states):
            raise RecordingError(
                f"{where}: {len(actions)} actions for {len(states)} states; the trajectory is damaged, record it again"
            )
        found = _find_videos(path, metadata)
        named = {name: camera.key for name, camera in robot.cameras.items()} or {name: name for name in CAMERAS}
        return Recording(
            states=states,
            actions=actions,
            cameras={
                name: Footage(video, extrinsics=extrinsics.get(key))
                for name, key in named.items()
                if (video := found.get(key)) is not None
            },
            rate=_positive_rate(rate, path),
            robot=str(metadata["robot"]) if "robot" in metadata else None,
            instruction=str(metadata.get("current_task") or ""),
            files=tuple(sorted([path / _TRAJECTORY, *path.glob("metadata*.json")])),
            notes=() if len(there) == len(keys) else (f"no commands ({', '.join(keys)})",),
        )


def find_episodes(root: Path) -> list[Path]:
    """Folders at or below `root` that are laid out as episodes, sorted; unfinished ones (`*.partial`) are passed over."""
    found = []
    for folder, below, _ in walk_folders(root):
        if is_episode(folder):
            found.append(folder)
            below.clear()
    return sorted(found)


def read_episode(folder: str | Path) -> Episode:
    """Read states, actions and metadata of one episode folder; raises RecordingError for what is missing or damaged.

    The rate is the metadata's `rate`, else the trajectory's `fps` attribute, else None.
    """
    folder = Path(folder)
    metadata = _read_metadata(folder)
    path = folder / _TRAJECTORY
    with _trajectory_of(folder) as file:
        states = _poses(file, "observation/robot_state", path)
        actions = _poses(file, "action", path) if "action/cartesian_position" in file else None
        rate = metadata.get("rate", file.attrs.get("fps"))
    if states is None:
        raise RecordingError(f"{path}: no observation/robot_state/cartesian_position; the layout needs states [T, 6]")
    if actions is not None and len(actions) != len(states):
        raise RecordingError(
            f"{path}: {len(actions)} actions for {len(states)} states; the trajectory is damaged, record it again"
        )
    return Episode(
        name=folder.name,
        states=states,
        actions=actions,
        videos=_find_videos(folder, metadata),
        rate=_positive_rate(rate, folder),
        robot=str(metadata.get("robot", "franka")),
        instruction=str(metadata.get("current_task") or ""),
        metadata=metadata,
    )


def write_episode(
    folder: str | Path,
    frames: Mapping[Camera, NDArray[np.uint8]],
    *,
    states: NDArray[Any],
    actions: NDArray[Any],
    rate: float,
    robot: str,
    instruction: str,
    write_video: VideoWriter,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write one episode in the raw DROID layout, whole or not at all; the same input gives the same bytes.

    frames: uint8 [T, Y, X, 3] a camera. states: [T, 7]; actions: [T, 7], the commanded absolute poses; units as in `Episode`.
    `rate` is rows and frames a second; `extra` adds keys to the metadata. Raises RecordingError where the lengths differ.
    """
    folder = Path(folder)
    lengths = {"states": len(states), "actions": len(actions)} | {camera: len(pixels) for camera, pixels in frames.items()}
    if len(set(lengths.values())) != 1 or np.shape(states)[1:] != (7,) or np.shape(actions)[1:] != (7,) or not frames:
        raise RecordingError(
            f"{folder}: states and actions must be [T, 7] with one frame a row and camera; lengths are {lengths}"
        )
    metadata = {
        "uuid": f"SIM+{folder.name}",
        "lab": "SIM",
        "success": True,
        "current_task": instruction,
        "trajectory_length": len(states),
        "robot": robot,
        "robot_serial": robot,
        "rate": rate,
        "hdf5_path": f"{folder.name}/{_TRAJECTORY}",
    } | dict(extra or {})
    with replaced_atomically(folder) as partial:
        (partial / MOVIES).mkdir(parents=True)
        for camera, pixels in frames.items():
            serial_key, path_key = _METADATA_NAMES[camera]
            movie = MOVIES / f"{_SERIALS[camera]}.mp4"
            write_video(partial / movie, pixels, fps=rate)
            metadata |= {serial_key: _SERIALS[camera], path_key: f"{folder.name}/{movie.as_posix()}"}
        (partial / _TRAJECTORY).write_bytes(_trajectory(states, actions, rate, frames))
        write_json(partial / f"metadata_{metadata['uuid']}.json", metadata)


@contextmanager
def _trajectory_of(folder: Path) -> Iterator[Any]:
    """The open HDF5 file of an episode; raises RecordingError where it is missing or damaged."""
    path = folder / _TRAJECTORY
    if not path.is_file():
        raise RecordingError(f"{path}: no such file; an episode in the raw DROID layout needs its trajectory")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise RecordingError(f"{path}: not a readable HDF5 file ({' '.join(str(error).split())}); copy it again") from None


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    file.visititems(lambda name, item: found.update({name: tuple(item.shape)}) if isinstance(item, h5py.Dataset) else None)
    return found


def _trajectory(states: NDArray[Any], actions: NDArray[Any], rate: float, cameras: Mapping[Camera, Any]) -> bytes:
    """The HDF5 file, made in memory: written in one go, a full disk is an OSError and not a crash inside the HDF5 library."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["fps"] = float(rate)
        for group, rows in (("observation/robot_state", states), ("action", actions)):
            file[f"{group}/cartesian_position"] = np.asarray(rows, np.float64)[:, :6]
            file[f"{group}/gripper_position"] = np.asarray(rows, np.float64)[:, 6]
        for camera in cameras:
            file[f"observation/camera_extrinsics/{_SERIALS[camera]}_left"] = np.zeros((len(states), 6))
    return memory.getvalue()


def _poses(file: Any, group: str, path: Path) -> NDArray[np.float32] | None:
    """Pose and gripper of one group, float32 [T, 7], or None where the group has no pose."""
    if f"{group}/cartesian_position" not in file or f"{group}/gripper_position" not in file:
        return None
    pose = np.asarray(file[f"{group}/cartesian_position"])
    gripper = np.asarray(file[f"{group}/gripper_position"])
    if pose.ndim != 2 or pose.shape[1] != 6 or not len(pose) or gripper.size != len(pose):
        raise RecordingError(
            f"{path}: {group}: poses {list(pose.shape)} and gripper {list(gripper.shape)} are not [T, 6] and [T]; record it again"
        )
    rows = np.concatenate([pose, gripper.reshape(-1, 1)], axis=1).astype(np.float32)
    if not np.isfinite(rows).all():
        raise RecordingError(
            f"{path}: {group}: row {int(np.argmin(np.isfinite(rows).all(axis=1)))} is not finite; cut or drop it"
        )
    return rows


def _extrinsics(file: Any, metadata: Mapping[str, Any], camera: Camera, length: int) -> NDArray[np.float32] | None:
    """The pose of a camera's left eye in every row, [T, 6]; None where it was not recorded, which may be written as zeros."""
    key = f"observation/camera_extrinsics/{metadata.get(_METADATA_NAMES[camera][0])}_left"
    rows = np.asarray(file[key], np.float32) if key in file else np.zeros((length, 6), np.float32)
    return rows if rows.shape == (length, 6) and rows.any() and np.isfinite(rows).all() else None


def _read_metadata(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.glob("metadata*.json"))
    if not paths:
        raise RecordingError(f"{folder}: no metadata_*.json; it names the cameras of an episode in the raw DROID layout")
    try:
        metadata = json.loads(paths[0].read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordingError(f"{paths[0]}: not JSON ({error}); copy it again") from None
    if not isinstance(metadata, dict):
        raise RecordingError(f"{paths[0]}: holds a {type(metadata).__name__}, not a JSON object; copy it again")
    return metadata


def _find_videos(folder: Path, metadata: Mapping[str, Any]) -> dict[str, Path]:
    videos: dict[str, Path] = {}
    for camera in CAMERAS:
        serial_key, path_key = _METADATA_NAMES[camera]
        names = [f"{metadata[serial_key]}.mp4"] if serial_key in metadata else []
        names += [Path(str(metadata[path_key])).name] if metadata.get(path_key) else []
        path = next((folder / MOVIES / name for name in names if (folder / MOVIES / name).is_file()), None)
        if path is not None:
            videos[camera] = path
    return videos


def _positive_rate(rate: Any, folder: Path) -> float | None:
    if rate is None:
        return None
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < 1e4:
        raise RecordingError(f"{folder}: rate: {rate!r} is not a number of rows a second")
    return value
