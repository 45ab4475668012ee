"""The raw DROID layout: what is written reads back, real episodes read, damage is named."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from vjepa2cli.data.video import read_clip, write_video
from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.droid import find_episodes, read_episode, write_episode
from vjepa2cli.recordings.manifests import LabelledSpan, read_manifest
from vjepa2cli.recordings.spans import Span

STATES = np.linspace(-1, 1, 42).reshape(6, 7)
ACTIONS = STATES + 0.5


def write(folder: Path, *, num_frames: int = 6) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 32, 32, 3), np.uint8)
    write_episode(
        folder,
        {"exterior_1": frames},
        states=STATES,
        actions=ACTIONS,
        rate=4.0,
        robot="tabletop",
        instruction="lift",
        write_video=write_video,
        extra={"motion": "waypoints"},
    )


def test_written_episode_reads_back(tmp_path: Path) -> None:
    write(tmp_path / "ep")
    episode = read_episode(tmp_path / "ep")
    assert np.array_equal(episode.states, STATES.astype(np.float32))
    assert episode.actions is not None
    assert np.array_equal(episode.actions, ACTIONS.astype(np.float32))
    assert (episode.rate, episode.robot, episode.instruction) == (4.0, "tabletop", "lift")
    assert read_clip(episode.videos["exterior_1"]).timestamps.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]
    metadata = json.loads(next((tmp_path / "ep").glob("metadata_*.json")).read_text())
    assert metadata["left_mp4_path"] == "ep/recordings/MP4/10000001.mp4"
    assert metadata["motion"] == "waypoints"


def test_same_episode_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write(tmp_path / name / "ep")
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) == 3
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)


def test_episode_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="lengths"):
        write(tmp_path / "ep", num_frames=5)

    def full_disk(path: Path, frames: np.ndarray, *, fps: float) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_episode(
            tmp_path / "ep",
            {"wrist": np.zeros((6, 32, 32, 3), np.uint8)},
            states=STATES,
            actions=ACTIONS,
            rate=4.0,
            robot="tabletop",
            instruction="",
            write_video=full_disk,
        )
    assert list(tmp_path.iterdir()) == []


def test_episodes_are_found_at_any_depth_once_and_unfinished_ones_passed_over(tmp_path: Path) -> None:
    for name in ("b", "lab/success/a", "c.7.partial"):
        write(tmp_path / name)
    (tmp_path / "lab" / "round").symlink_to(tmp_path, target_is_directory=True)
    assert find_episodes(tmp_path) == [tmp_path / "b", tmp_path / "lab" / "success" / "a"]


def test_damage_is_named(tmp_path: Path) -> None:
    cases = {
        "no metadata_": lambda folder: next(folder.glob("metadata*")).unlink(),
        "not JSON": lambda folder: next(folder.glob("metadata*")).write_text("{"),
        "no such file": lambda folder: (folder / "trajectory.h5").unlink(),
        "not a readable HDF5": lambda folder: (folder / "trajectory.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        "row 3 is not finite": _spoil_row,
        "no observation/robot_state": _drop_states,
        "5 actions for 6 states": _drop_action,
    }
    for number, (reason, damage) in enumerate(cases.items()):
        folder = tmp_path / f"ep{number}"
        write(folder)
        damage(folder)
        with pytest.raises(RecordingError, match=reason) as caught:
            read_episode(folder)
        assert "\n" not in str(caught.value)


def _spoil_row(folder: Path) -> None:
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        file["observation/robot_state/gripper_position"][3] = np.nan


def _drop_states(folder: Path) -> None:
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        del file["observation"]


def _drop_action(folder: Path) -> None:
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        del file["action"]
        file["action/cartesian_position"] = np.zeros((5, 6))
        file["action/gripper_position"] = np.zeros(5)


def test_real_episodes_read(shared: Path) -> None:
    episodes = [read_episode(folder) for folder in find_episodes(shared / "data" / "robot")]
    assert [len(episode.states) for episode in episodes] == [56, 89, 137, 80, 124, 62, 39, 121]
    assert all(episode.rate == 5.0 and set(episode.videos) == {"exterior_1", "exterior_2", "wrist"} for episode in episodes)
    # The commanded pose leads the state by 0.2 to 0.27 s, so it is nearer to the next row than to its own.
    states = np.concatenate([episode.states[1:, :3] for episode in episodes])
    commands = np.concatenate([episode.actions[:-1, :3] for episode in episodes if episode.actions is not None])
    own = np.concatenate([episode.states[:-1, :3] for episode in episodes])
    assert np.abs(commands - states).mean() < np.abs(commands - own).mean()


def test_real_table_of_labels_finds_its_videos_above_it(shared: Path) -> None:
    videos = read_manifest(shared / "data" / "robot" / "droid_motion_windows.csv")
    assert sum(len(video.labelled) for video in videos) == 167
    assert all(video.path.is_file() for video in videos)
    assert videos[0].labelled[0] == LabelledSpan(Span(0, 8), "still")
    assert {video.episode for video in videos} == {"0", "1", "2", "3", "4", "5", "6", "899"}
