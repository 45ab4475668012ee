"""LeRobot sets: all three versions give the same episodes, real ones read, and what is missing is said or refused."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.errors import DependencyError, RecordingError
from vjepa2cli.recordings.lerobot import LeRobotReader
from vjepa2cli.settings.robot import RobotConfig

READER = LeRobotReader()


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_every_version_gives_the_rows_that_were_written(write_lerobot, episodes, robot: RobotConfig, version: str) -> None:
    root = write_lerobot(episodes, version)
    assert READER.recognises(root)
    listing = READER.list_episodes(root, robot)
    assert listing.episodes == tuple(f"episode_{index:06d}" for index in range(5))
    assert listing.remarks == ()
    for name, episode in zip(listing.episodes, episodes, strict=True):
        read = READER.read(root, name, robot)
        assert np.array_equal(read.states, episode.states)
        assert np.array_equal(read.actions, episode.actions)
        assert (read.rate, read.notes, read.instruction) == (10.0, (), ("push", "pull")[episode.task])


def test_episodes_of_version_3_lie_one_after_the_other_in_their_video(write_lerobot, episodes, robot: RobotConfig) -> None:
    root = write_lerobot(episodes, "v3.0")
    footage = [READER.read(root, f"episode_{index:06d}", robot).cameras["front"] for index in range(5)]
    assert [item.path.name for item in footage] == ["file-000.mp4"] * 4 + ["file-001.mp4"]
    lengths = [len(episode.states) for episode in episodes]
    starts = [0, lengths[0], sum(lengths[:2]), sum(lengths[:3]), 0]
    for item, start, length in zip(footage, starts, lengths, strict=True):
        assert item.span == pytest.approx((start / 10, (start + length) / 10))


def test_missing_episodes_and_cameras_are_said(write_lerobot, episodes, robot: RobotConfig) -> None:
    root = write_lerobot(episodes)
    for index in (0, 3):
        (root / f"data/chunk-000/episode_{index:06d}.parquet").unlink()
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.images.side"] = {"dtype": "video", "shape": [32, 48, 3]}
    info["data_path"] = "data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet"  # as a real set has it
    (root / "meta/info.json").write_text(json.dumps(info))
    listing = READER.list_episodes(root, robot)
    assert listing.episodes == ("episode_000001", "episode_000002", "episode_000004")
    assert listing.remarks == (
        "its metadata names 5 episodes, of which 3 are here",
        "its info.json declares the camera observation.images.side, of which there is no video",
    )
    assert set(READER.read(root, "episode_000004", robot).cameras) == {"front"}


def test_rate_of_the_rows_counts_and_what_is_declared_is_said_to_differ(write_lerobot, episodes, robot: RobotConfig) -> None:
    root = write_lerobot(episodes)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": 60}))
    read = READER.read(root, "episode_000001", robot)
    assert read.rate == pytest.approx(10, rel=1e-4)
    assert read.notes == ("its rows run at 10 Hz, not at the 60 that is declared; the rows' times count",)


def test_what_cannot_be_read_is_refused_in_one_line(write_lerobot, episodes, robot: RobotConfig) -> None:
    other = robot.model_copy(update={"state": robot.state.model_copy(update={"keys": ("observation.pose",)})})
    blind = robot.model_copy(update={"cameras": {}})
    root = write_lerobot(episodes)
    cases = [
        (other, "no observation.pose (there: observation.state, action"),
        (blind, "names no camera; add 'cameras: {exterior_1: {key: observation.images.front}}'"),
    ]
    for described, says in cases:
        with pytest.raises(RecordingError) as caught:
            READER.read(root, "episode_000000", described)
        assert says in str(caught.value)
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(RecordingError, match="not a readable parquet table"):
        READER.read(root, "episode_000001", robot)
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v1.6", "features": {}}))
    with pytest.raises(RecordingError, match=r"LeRobot v1\.6; v2\.0, v2\.1 and v3\.0 are read"):
        READER.list_episodes(root, robot)
    (root / "meta/info.json").write_text("{")
    with pytest.raises(RecordingError, match="not JSON"):
        READER.list_episodes(root, robot)


def test_rows_out_of_order_are_refused(write_lerobot, episodes, robot: RobotConfig) -> None:
    from pyarrow import parquet

    path = write_lerobot(episodes) / "data/chunk-000/episode_000000.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.take([0, 2, 1, *range(3, len(table))]), path)
    with pytest.raises(RecordingError, match="frame_index skips or repeats rows"):
        READER.read(path.parents[2], "episode_000000", robot)


def test_without_pyarrow_the_extra_is_named(write_lerobot, episodes, robot: RobotConfig, monkeypatch) -> None:
    root, usual = write_lerobot(episodes), builtins.__import__

    def no_pyarrow(name: str, *rest: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return usual(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    with pytest.raises(DependencyError, match=r"pip install 'vjepa2cli\[lerobot\]'"):
        READER.read(root, "episode_000000", robot)


def test_real_set_with_missing_episodes_reads(shared: Path) -> None:
    root, g1 = shared / "data/robot/lerobot_v21_g1", config.load_robot("g1")
    listing = READER.list_episodes(root, g1)
    assert listing.episodes == ("episode_000029", "episode_000030", "episode_000031")
    assert listing.remarks == ("its metadata names 100 episodes, of which 3 are here",)
    episodes = [READER.read(root, name, g1) for name in listing.episodes]
    assert all(episode.rate == 30 and episode.states.shape[1] == 26 for episode in episodes)
    assert {episode.instruction for episode in episodes} == {"Pick up the yellow bottle on the table."}
    # The commands are absolute targets, so they are near the states.
    assert max(np.abs(episode.actions - episode.states).max() for episode in episodes if episode.actions is not None) < 0.5


def test_real_set_of_version_2_0_reads_in_spite_of_its_metadata(shared: Path) -> None:
    root, gr1 = shared / "data/robot/lerobot_v20_gr1_sim", config.load_robot("gr1-sim")
    listing = READER.list_episodes(root, gr1)
    assert len(listing.episodes) == 5
    assert listing.remarks == ("its info.json declares the camera observation.images.egoview, of which there is no video",)
    episodes = [READER.read(root, name, gr1) for name in listing.episodes]
    assert [len(episode.states) for episode in episodes] == [416, 470, 470, 412, 328]
    assert all(episode.rate == 20 and set(episode.cameras) == {"head"} for episode in episodes)
    assert episodes[0].instruction == "pick the pear from the counter and place it in the plate"
