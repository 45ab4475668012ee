"""LeRobot data sets v2.0, v2.1 and v3.0: parquet tables of rows, mp4 videos, and `meta/info.json`.

v2 keeps a table and a video an episode, v3 many episodes in one file, told apart by a table of episodes.
Source: https://huggingface.co/docs/lerobot, "LeRobotDataset"; src/lerobot/datasets of huggingface/lerobot.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import DependencyError, RecordingError
from vjepa2cli.recordings.episode import Footage, Listing, Picture, Recording, rate_of, refuse_missing_cameras
from vjepa2cli.settings.robot import RobotConfig

_INFO = Path("meta") / "info.json"
_NAME = re.compile(r"episode_(\d+)")
_V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class _Set:
    """What the metadata says, and where the rows and the videos of each episode really lie."""

    root: Path
    info: Mapping[str, Any]
    data: Mapping[int, Path]
    videos: Mapping[str, Mapping[int, Footage]]
    tasks: Mapping[int, tuple[str, ...]]
    declared: int

    @property
    def pictures(self) -> list[str]:
        """Features that hold pictures, those with files or in the rows first."""
        kinds = {name: feature.get("dtype") for name, feature in self.info["features"].items()}
        there = [name for name, kind in kinds.items() if kind == "image" or (kind == "video" and self.videos.get(name))]
        return there + [name for name, kind in kinds.items() if kind == "video" and name not in there]


class LeRobotReader:
    """Reads LeRobot data sets; needs pyarrow, which comes with the extra `lerobot`."""

    layout = "LeRobot"
    usual_robot: str | None = None

    def recognises(self, path: Path) -> bool:
        """A folder with `meta/info.json`."""
        return (path / _INFO).is_file()

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """The episodes whose rows are there; says how many the metadata names beyond them, and which cameras are absent."""
        found = _open(path)
        remarks = []
        if found.declared > len(found.data):
            remarks.append(f"its metadata names {found.declared} episodes, of which {len(found.data)} are here")
        absent = [key for key in found.pictures if found.info["features"][key]["dtype"] == "video" and not found.videos.get(key)]
        remarks += [f"its info.json declares the camera {key}, of which there is no video" for key in absent]
        if not found.data:
            raise RecordingError(f"{path}: LeRobot metadata, but no rows in data/*.parquet; download the set again")
        return Listing(tuple(_name(index) for index in sorted(found.data)), tuple(remarks))

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """The features that describe the robot or its commands."""
        found = _open(path).info["features"]
        return {key: _names(feature) for key, feature in found.items() if key.startswith(("observation.", "action"))}

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """Rows of the arrays that the robot's description names, and the footage of its cameras."""
        found, index = _open(path), _index(episode)
        where = f"{path}: {episode}"
        refuse_missing_cameras(robot, found.pictures, where=where)
        actions = [] if robot.action is None else [key for key in robot.action.keys if key in found.info["features"]]
        wanted = [*robot.state.keys, *actions, *({"timestamp", "frame_index", "task_index"} & set(found.info["features"]))]
        rows = _rows(found, index, wanted, where=where)
        frames = rows.get("frame_index")
        if frames is not None and not np.array_equal(frames.ravel() - frames.ravel()[0], np.arange(len(frames))):
            raise RecordingError(f"{where}: its frame_index skips or repeats rows; record it again or drop the episode")
        declared = found.info.get("fps")
        try:
            times = rows["timestamp"].ravel() if "timestamp" in rows else ()
            rate, notes = rate_of(times, None if declared is None else float(declared))
        except RecordingError as error:
            raise RecordingError(f"{where}: {error}") from None
        cameras = {name: _footage(found, camera.key, index) for name, camera in robot.cameras.items()}
        missing = robot.action is not None and len(actions) < len(robot.action.keys)
        return Recording(
            states=_joined(rows, robot.state.keys),
            actions=None if missing or not actions else _joined(rows, actions),
            cameras={name: footage for name, footage in cameras.items() if footage is not None},
            rate=rate,
            robot=found.info.get("robot_type"),
            instruction=_instruction(found, index, rows),
            files=(found.data[index],),
            notes=(*notes, *(["its commands are not there"] if missing else [])),
        )


def _names(feature: Mapping[str, Any]) -> list[str]:
    """Names of a feature's numbers: a list, a list in a list, or lists by kind; numbered where there are none."""
    if feature.get("dtype") in ("video", "image"):
        return []
    names: Any = feature.get("names")
    if isinstance(names, dict):
        names = [name for part in names.values() for name in (part if isinstance(part, list) else [part])]
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    width = int(np.prod(feature.get("shape") or [1]))
    return [str(name) for name in names] if isinstance(names, list) and len(names) == width else _numbered(width)


def _numbered(width: int) -> list[str]:
    return [f"number_{index}" for index in range(width)]


def _name(index: int) -> str:
    return f"episode_{index:06d}"


def _index(name: str) -> int:
    matched = _NAME.fullmatch(name)
    assert matched is not None, name
    return int(matched[1])


def _open(root: Path) -> _Set:
    path = root / _INFO
    try:
        return _opened(root, path.stat().st_mtime_ns)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordingError(f"{root}: its metadata is not JSON ({error}); download the set again") from None


@lru_cache(maxsize=8)
def _opened(root: Path, _changed: int) -> _Set:
    info = json.loads((root / _INFO).read_text(encoding="utf-8"))
    version = str(info.get("codebase_version", "none")) if isinstance(info, dict) else "none"
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise RecordingError(f"{root}: its meta/info.json describes no features; download the set again")
    if version.startswith("v2."):
        return _open_v2(root, info)
    if version.startswith("v3."):
        return _open_v3(root, info)
    raise RecordingError(f"{root}: LeRobot {version}; v2.0, v2.1 and v3.0 are read, so convert it with lerobot's own scripts")


def _open_v2(root: Path, info: Mapping[str, Any]) -> _Set:
    """Files are taken by their names: templates of paths in `info.json` are known to be wrong."""
    data = {index: path for path in sorted((root / "data").rglob("*.parquet")) if (index := _number(path)) is not None}
    videos: dict[str, dict[int, Footage]] = {}
    for path in sorted((root / "videos").rglob("*.mp4")):
        if (index := _number(path)) is not None:
            videos.setdefault(path.parent.name, {})[index] = Footage(path)
    items = _lines(root / "meta" / "episodes.jsonl")
    tasks = {int(item["episode_index"]): tuple(map(str, item.get("tasks", ()))) for item in items}
    return _Set(root, info, data, videos, tasks, max(int(info.get("total_episodes", 0)), len(items)))


def _number(path: Path) -> int | None:
    matched = _NAME.fullmatch(path.stem)
    return None if matched is None else int(matched[1])


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _open_v3(root: Path, info: Mapping[str, Any]) -> _Set:
    keys = [name for name, feature in info["features"].items() if feature.get("dtype") == "video"]
    data: dict[int, Path] = {}
    videos: dict[str, dict[int, Footage]] = {key: {} for key in keys}
    tasks: dict[int, tuple[str, ...]] = {}
    declared = int(info.get("total_episodes", 0))
    for table in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        for row in _table(table).to_pylist():
            index = int(row["episode_index"])
            tasks[index] = tuple(map(str, row.get("tasks") or ()))
            path = root / _formatted(info, "data_path", _V3_DATA, row, "data")
            if path.is_file():
                data[index] = path
            for key in keys:
                prefix = f"videos/{key}"
                if row.get(f"{prefix}/file_index") is not None:
                    video = root / _formatted(info, "video_path", _V3_VIDEO, row, prefix, video_key=key)
                    span = (float(row[f"{prefix}/from_timestamp"]), float(row[f"{prefix}/to_timestamp"]))
                    if video.is_file():
                        videos[key][index] = Footage(video, span)
    return _Set(root, info, data, videos, tasks, max(declared, len(tasks)))


def _formatted(
    info: Mapping[str, Any], template: str, usual: str, row: Mapping[str, Any], prefix: str, *, video_key: str = ""
) -> str:
    text = str(info.get(template) or usual)
    return text.format(chunk_index=row[f"{prefix}/chunk_index"], file_index=row[f"{prefix}/file_index"], video_key=video_key)


def _table(path: Path, **chosen: Any) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise DependencyError(f"{path}: LeRobot tables need pyarrow; install it with pip install 'vjepa2cli[lerobot]'") from None
    try:
        return parquet.read_table(path, **chosen)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RecordingError(f"{path}: not a readable parquet table ({reason}); download it again") from None


def _rows(found: _Set, index: int, columns: Sequence[str], *, where: str) -> dict[str, NDArray[Any]]:
    """Arrays [T, n] of the rows of one episode."""
    absent = [key for key in columns if key not in found.info["features"]]
    if absent:
        there = ", ".join(name for name, feature in found.info["features"].items() if feature.get("dtype") != "video")
        raise RecordingError(f"{where}: no {', '.join(absent)} (there: {there}); mend the keys in robot.yaml")
    rows = _table(found.data[index], columns=list(dict.fromkeys(columns)), filters=[("episode_index", "=", index)])
    if not len(rows):
        raise RecordingError(f"{where}: its table holds no rows of it; download the set again")
    return {name: _array(rows[name], where=f"{where}: {name}") for name in rows.column_names}


def _array(column: Any, *, where: str) -> NDArray[Any]:
    values, count = column.combine_chunks(), len(column)
    while hasattr(values, "flatten") and values.type.num_fields:
        values = values.flatten()
    if values.null_count or len(values) % count:
        raise RecordingError(f"{where}: rows are missing or of unequal length; record the episode again")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(count, -1)


def _joined(rows: Mapping[str, NDArray[Any]], keys: Sequence[str]) -> NDArray[Any]:
    return np.concatenate([rows[key] for key in keys], axis=1)


def _footage(found: _Set, key: str, index: int) -> Footage | None:
    if found.info["features"].get(key, {}).get("dtype") == "image":
        return Footage(found.data[index], pictures=partial(_images, found.data[index], key, index))
    return found.videos.get(key, {}).get(index)


def _images(path: Path, key: str, index: int) -> Iterator[Picture]:
    for row in _table(path, columns=[key], filters=[("episode_index", "=", index)])[key]:
        image = row.as_py()
        yield image["bytes"] if image["bytes"] else (path.parent / image["path"]).read_bytes()


def _instruction(found: _Set, index: int, rows: Mapping[str, NDArray[Any]]) -> str:
    """The task of the first row; sets name further ones, such as `valid`, that are no instruction."""
    texts = _task_texts(found.root)
    if "task_index" in rows and (text := texts.get(int(rows["task_index"][0, 0]))) is not None:
        return text
    return next(iter(found.tasks.get(index, ())), "")


@lru_cache(maxsize=8)
def _task_texts(root: Path) -> dict[int, str]:
    table = root / "meta" / "tasks.parquet"
    if table.is_file():
        # The text is the index of the data frame, which pandas writes under this name where it has none.
        items = _table(table).to_pylist()
        return {int(item["task_index"]): str(item.get("task", item.get("__index_level_0__", ""))) for item in items}
    return {int(item["task_index"]): str(item["task"]) for item in _lines(root / "meta" / "tasks.jsonl")}
