"""Small recordings of a robot with three joints, written as other people's tools write them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.data.video import write_video
from vjepa2cli.settings.robot import RobotConfig

ROBOT = """
name: three-joints
rate: 10
state:
  keys: [observation.state]
  numbers:
    - {names: [shoulder, elbow, wrist], unit: rad, frame: joint, limits: [-3.2, 3.2]}
action: {keys: [action]}
own_numbers: all
cameras: {front: {key: observation.images.front}}
"""
TASKS = ("push", "pull")


@dataclass(frozen=True)
class Episode:
    """What was recorded: states [T, 3], commands [T, 3] that lead them by a row, frames [T, 32, 48, 3]; the task's number."""

    states: np.ndarray
    actions: np.ndarray
    frames: np.ndarray
    task: int


def make_episode(seed: int, steps: int) -> Episode:
    """A bar in the picture stands where the shoulder is."""
    rng = np.random.default_rng(seed)
    states = 0.6 * np.sin(np.cumsum(rng.uniform(0.05, 0.4, (steps + 1, 3)), axis=0)).astype(np.float32)
    frames = np.full((steps, 32, 48, 3), 60, np.uint8)
    for frame, place in zip(frames, (24 + 24 * states[:-1, 0]).astype(int), strict=True):
        frame[8:24, max(0, place - 4) : place + 4] = (220, 180, 40)
    return Episode(states[:-1], states[1:], frames, seed % len(TASKS))


@pytest.fixture
def episodes() -> list[Episode]:
    """Five episodes of different lengths."""
    return [make_episode(seed, 18 + 3 * seed) for seed in range(5)]


@pytest.fixture
def robot(tmp_path: Path) -> RobotConfig:
    """The robot's description, which lies in `robot.yaml` as well."""
    (tmp_path / "robot.yaml").write_text(ROBOT)
    return config.load_robot(tmp_path / "robot.yaml")


WriteSet = Callable[..., Path]


@pytest.fixture
def write_lerobot(tmp_path: Path) -> WriteSet:
    """`write(episodes, version="v2.1", fps=10, name="set")` writes a LeRobot data set and returns its folder."""
    return lambda episodes, version="v2.1", fps=10, name="set": write_set(tmp_path / name, episodes, version, fps)


def write_set(root: Path, episodes: list[Episode], version: str, fps: float) -> Path:
    from pyarrow import Table

    tables, first = [], 0
    for index, episode in enumerate(episodes):
        count = len(episode.states)
        rows: dict[str, Any] = {
            "observation.state": episode.states.tolist(),
            "action": episode.actions.tolist(),
            "timestamp": (np.arange(count) / fps).astype(np.float32),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, index),
            "index": first + np.arange(count),
            "task_index": np.full(count, episode.task),
        }
        tables.append(Table.from_pydict(rows))
        first += count
    features = {
        "observation.state": {"dtype": "float32", "shape": [3]},
        "action": {"dtype": "float32", "shape": [3]},
        "observation.images.front": {"dtype": "video", "shape": [32, 48, 3]},
        **{name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {"dtype": "float32", "shape": [1]},
    }
    info = {"codebase_version": version, "robot_type": "joints", "fps": fps, "features": features, "total_episodes": len(tables)}
    (root / "meta").mkdir(parents=True)
    (_write_v3 if version == "v3.0" else _write_v2)(root, info, tables, episodes)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def _write_v2(root: Path, info: dict[str, Any], tables: list[Any], episodes: list[Episode]) -> None:
    from pyarrow import parquet

    info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    lines = []
    (root / "data/chunk-000").mkdir(parents=True)
    for index, (table, episode) in enumerate(zip(tables, episodes, strict=True)):
        parquet.write_table(table, root / f"data/chunk-000/episode_{index:06d}.parquet")
        video = root / f"videos/chunk-000/observation.images.front/episode_{index:06d}.mp4"
        write_video(video, episode.frames, fps=info["fps"])
        lines.append({"episode_index": index, "tasks": [TASKS[episode.task]], "length": len(table)})
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = [{"task_index": index, "task": text} for index, text in enumerate(TASKS)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))


def _write_v3(root: Path, info: dict[str, Any], tables: list[Any], episodes: list[Episode]) -> None:
    """All but the last episode share a file, as sets do whose files are cut by their size."""
    from pyarrow import Table, concat_tables, parquet

    key, fps = "observation.images.front", info["fps"]
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    rows: list[dict[str, Any]] = []
    for file, members in enumerate((range(len(tables) - 1), range(len(tables) - 1, len(tables)))):
        (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        parquet.write_table(concat_tables([tables[index] for index in members]), root / f"data/chunk-000/file-{file:03d}.parquet")
        frames = np.concatenate([episodes[index].frames for index in members])
        write_video(root / f"videos/{key}/chunk-000/file-{file:03d}.mp4", frames, fps=fps)
        begin = 0.0
        for index in members:
            end = begin + len(tables[index]) / fps
            rows.append(
                {
                    "episode_index": index,
                    "tasks": [TASKS[episodes[index].task]],
                    "length": len(tables[index]),
                    "data/chunk_index": 0,
                    "data/file_index": file,
                    f"videos/{key}/chunk_index": 0,
                    f"videos/{key}/file_index": file,
                    f"videos/{key}/from_timestamp": begin,
                    f"videos/{key}/to_timestamp": end,
                }
            )
            begin = end
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": list(range(len(TASKS))), "task": list(TASKS)}
    parquet.write_table(Table.from_pydict(tasks), root / "meta/tasks.parquet")
