"""HDF5 and npz through a key map: robomimic's groups, ACT's coded images, one state too many, the real Franka example."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.hdf5 import Hdf5Reader
from vjepa2cli.recordings.npz import NpzReader
from vjepa2cli.settings.robot import RobotConfig

ROBOMIMIC = """
name: sim
rate: 20
episodes: data/*
state:
  keys: [obs/robot0_eef_pos, obs/robot0_eef_quat, obs/robot0_gripper_qpos]
  numbers:
    - {names: [x, y, z], unit: m, frame: base}
    - {names: [qx, qy, qz, qw], unit: share, frame: base, convention: quaternion_xyzw}
    - {names: [left_finger, right_finger], unit: m}
action: {keys: [actions], numbers: [{names: [dx, dy, dz, a, b, c, g], unit: share, meaning: delta}]}
end_effector: {position: [x, y, z], rotation: [qx, qy, qz, qw], gripper: {name: left_finger, open: 0.04, closed: 0}}
cameras: {front: {key: obs/agentview_image}}
"""
ACT = """
name: aloha
rate: 50
state: {keys: [observations/qpos], numbers: [{names: [a, b], unit: rad}]}
action: {keys: [action]}
own_numbers: all
cameras: {high: {key: observations/images/cam_high, bgr: true}}
instruction: language
"""


def robot(tmp_path: Path, text: str) -> RobotConfig:
    (tmp_path / "robot.yaml").write_text(text)
    return config.load_robot(tmp_path / "robot.yaml")


def test_groups_of_a_file_are_episodes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path, rng = tmp_path / "demo.hdf5", np.random.default_rng(0)
    written = {}
    with h5py.File(path, "w") as file:
        for number in (10, 0, 2):
            steps = 5 + number
            parts = {
                "obs/robot0_eef_pos": rng.normal(size=(steps, 3)),
                "obs/robot0_eef_quat": rng.normal(size=(steps, 4)),
                "obs/robot0_gripper_qpos": rng.normal(size=(steps, 2)),
                "actions": rng.normal(size=(steps, 7)),
                "obs/agentview_image": rng.integers(0, 256, (steps, 8, 8, 3), np.uint8),
            }
            for key, values in parts.items():
                file[f"data/demo_{number}/{key}"] = values
            written[f"data/demo_{number}"] = parts
        file["mask/train"] = np.array([b"demo_0"])
    reader, described = Hdf5Reader(), robot(tmp_path, ROBOMIMIC)
    names = reader.list_episodes(path, described).episodes
    assert names == ("data/demo_0", "data/demo_2", "data/demo_10")
    for name in names:
        read = reader.read(path, name, described)
        parts = written[name]
        assert np.array_equal(read.states, np.concatenate([parts[key] for key in described.state.keys], axis=1))
        pictures = read.cameras["front"].pictures
        assert pictures is not None
        assert np.array_equal(np.stack(list(pictures())), parts["obs/agentview_image"])


def write_act(path: Path, *, states: int = 6, commands: int = 6, coded: bool = True) -> np.ndarray:
    frames = np.random.default_rng(1).integers(0, 256, (states, 16, 16, 3), np.uint8)
    with h5py.File(path, "w") as file:
        file["observations/qpos"] = np.arange(states * 2.0).reshape(states, 2)
        file["action"] = np.arange(commands * 2.0).reshape(commands, 2)
        file["language"] = "open the drawer"
        if coded:
            images = [cv2.imencode(".png", frame)[1].ravel() for frame in frames]
            rows = np.zeros((states, max(map(len, images)) + 7), np.uint8)
            for row, image in zip(rows, images, strict=True):
                row[: len(image)] = image
            file["observations/images/cam_high"] = rows
        else:
            file["observations/images/cam_high"] = frames.transpose(0, 3, 1, 2)
    return frames


def test_coded_and_channel_first_pictures_come_one_at_a_time(tmp_path: Path) -> None:
    reader, described = Hdf5Reader(), robot(tmp_path, ACT)
    for coded in (True, False):
        path = tmp_path / f"episode_{coded}.hdf5"
        frames = write_act(path, coded=coded)
        read = reader.read(path, *reader.list_episodes(path, described).episodes, described)
        assert read.instruction == "open the drawer"
        pictures = read.cameras["high"].pictures
        assert pictures is not None
        for picture, frame in zip(pictures(), frames, strict=True):
            if isinstance(picture, bytes):
                picture = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)  # as it was coded: blue first
            assert np.array_equal(picture, frame)


def test_one_state_more_than_commands_is_tolerated_and_said_and_two_are_refused(tmp_path: Path) -> None:
    reader, described, path = Hdf5Reader(), robot(tmp_path, ACT), tmp_path / "a.hdf5"
    write_act(path, states=6, commands=5)
    read = reader.read(path, "", described)
    assert read.actions is not None
    assert read.actions[:, 0].tolist() == [0, 2, 4, 6, 8, 8]
    assert read.notes == ("6 states for 5 commands; the last command stands for one more",)
    write_act(path, states=6, commands=4)
    with pytest.raises(RecordingError, match="4 commands for 6 states"):
        reader.read(path, "", described)


def test_what_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    reader, path = Hdf5Reader(), tmp_path / "a.hdf5"
    write_act(path)
    wrong = robot(tmp_path, ACT.replace("observations/qpos", "observations/qvel"))
    with pytest.raises(RecordingError, match=r"no array observations/qvel \(there: action \[6, 2\], language \[\]"):
        reader.read(path, "", wrong)
    blind = robot(tmp_path, ACT.replace("cameras: {high: {key: observations/images/cam_high, bgr: true}}", ""))
    with pytest.raises(RecordingError, match=r"names no camera; add .cameras: .exterior_1: .key: KEY"):
        reader.read(path, "", blind)
    with pytest.raises(RecordingError, match=r"no group matches episodes 'demo/\*' \(there: observations, observations/images\)"):
        reader.list_episodes(path, robot(tmp_path, ACT + "episodes: demo/*\n"))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(RecordingError, match="not a readable HDF5 file"):
        reader.read(path, "", wrong)
    (tmp_path / "b.npz").write_bytes(b"PK no archive")
    with pytest.raises(RecordingError, match=r"not a readable \.npz archive"):
        NpzReader().read(tmp_path / "b.npz", "", wrong)


FRANKA = """
name: franka
rate: 4
state:
  keys: [states]
  numbers:
    - {names: [x, y, z], unit: m, frame: base}
    - {names: [roll, pitch, yaw], unit: rad, frame: base, convention: euler_xyz}
    - {names: [gripper], unit: share}
end_effector: {position: [x, y, z], rotation: [roll, pitch, yaw], gripper: {name: gripper, open: 0, closed: 1}}
cameras: {exterior_1: {key: observations}}
"""


def test_real_archive_reads_without_its_batch_axis(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/robot/franka/franka_example_traj.npz"
    read = NpzReader().read(path, "", robot(tmp_path, FRANKA))
    archive = np.load(path)
    assert np.array_equal(read.states, archive["states"][0])
    pictures = read.cameras["exterior_1"].pictures
    assert pictures is not None
    assert np.array_equal(np.stack(list(pictures())), archive["observations"][0])
