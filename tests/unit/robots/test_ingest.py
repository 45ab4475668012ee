"""Ingesting robots: each frame lies beside its row, whatever the format, and what a robot is decides what its states are."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.data.video import iterate_frames, open_video, write_video
from vjepa2cli.errors import InputError, StaleArtifactError
from vjepa2cli.ingestion import IngestSummary, ingest
from vjepa2cli.recordings.droid import write_episode
from vjepa2cli.settings import IngestConfig
from vjepa2cli.settings.robot import CameraConfig, RobotConfig

SMALL = IngestConfig(short_side=32, shard_frames=16, val_fraction=0.25)
PIXEL = 1.05 / 24  # the bar is drawn at whole pixels, of which 24 are half the picture


def run(source: Path, out: Path, robot: RobotConfig | None, **changes: object) -> tuple[IngestSummary, VideoStore]:
    settings = SMALL.model_copy(update={"robot": robot, **changes})
    return ingest([source], out, config=settings, workers=0), VideoStore.open(out)


def bar_places(frames: np.ndarray) -> np.ndarray:
    """Where the bar of the pictures stands, as the shoulder's state."""
    columns = frames[:, :, :, 0].astype(float).mean(1)
    weights = np.clip(columns - 80, 0, None)
    return ((weights * np.arange(frames.shape[2])).sum(1) / weights.sum(1) - 23.5) / 24


def in_picture(store: VideoStore, entry: VideoEntry) -> float:
    """How far, at most, the bar is from where the row says, in shares of the picture's half width."""
    states = store.states(entry.key)
    assert states is not None
    inside = np.abs(states[:, 0]) < 0.8
    return float(np.abs(bar_places(store.frames(entry.key, 0, entry.num_frames)) - states[:, 0])[inside].max())


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_every_frame_lies_beside_its_row(write_lerobot, episodes, robot: RobotConfig, tmp_path: Path, version: str) -> None:
    summary, store = run(write_lerobot(episodes, version), tmp_path / "x.zarr", robot)
    assert (summary["videos"], summary["refused"], summary["notes"], summary["robots"]) == (5, [], [], ["three-joints"])
    for entry, episode in zip(store.entries, episodes, strict=True):
        assert np.array_equal(store.states(entry.key), episode.states)  # type: ignore[arg-type]
        assert np.array_equal(store.actions(entry.key), episode.actions)  # type: ignore[arg-type]
        assert entry.num_frames == len(episode.frames)
        assert (entry.fps, entry.source) == (10.0, entry.episode)
        assert in_picture(store, entry) < PIXEL
    space = StateSpace.parse(store.state_space)
    assert (space.kind, space.names, space.units) == ("own", ("shoulder", "elbow", "wrist"), ("rad",) * 3)


def test_lower_rate_keeps_frames_beside_their_rows(write_lerobot, episodes, robot: RobotConfig, tmp_path: Path) -> None:
    _, store = run(write_lerobot(episodes, "v3.0"), tmp_path / "x.zarr", robot, fps=4.0)
    entry = store.entries[0]
    assert store.indices(entry.key).tolist() == [0, 2, 5, 7, 10, 12, 15, 17]
    assert in_picture(store, entry) < PIXEL


def test_recording_without_a_description_is_refused_with_the_line_to_add(write_lerobot, episodes, tmp_path: Path) -> None:
    root = write_lerobot(episodes)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = [["shoulder", "elbow", "wrist"]]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError) as caught:
        run(root, tmp_path / "x.zarr", None)
    message = str(caught.value)
    assert "nobody says what its numbers are (there: observation.state 3, action 3)" in message
    assert "{keys: [observation.state], numbers: [{names: [shoulder, elbow, wrist], unit: rad}]}" in message
    assert "bridge, droid, g1, gr1-sim, tabletop" in message
    assert not (tmp_path / "x.zarr").exists()


def test_another_description_asks_to_start_over(write_lerobot, episodes, robot: RobotConfig, tmp_path: Path) -> None:
    root = write_lerobot(episodes)
    run(root, tmp_path / "x.zarr", robot)
    fewer = robot.model_copy(update={"own_numbers": ("wrist",)})
    with pytest.raises(StaleArtifactError, match=r"robot.own_numbers: 'all' -> \['wrist'\]"):
        run(root, tmp_path / "x.zarr", fewer)
    assert run(root, tmp_path / "y.zarr", fewer)[1].states(VideoStore.open(tmp_path / "y.zarr").entries[0].key).shape[1] == 1  # type: ignore[union-attr]


def test_what_is_missing_is_said_and_the_rest_is_taken(write_lerobot, episodes, robot: RobotConfig, tmp_path: Path) -> None:
    root = write_lerobot(episodes)
    (root / "data/chunk-000/episode_000000.parquet").unlink()
    (root / "videos/chunk-000/observation.images.front/episode_000001.mp4").unlink()
    write_video(root / "videos/chunk-000/observation.images.front/episode_000002.mp4", episodes[2].frames[:-1], fps=10)
    write_video(root / "videos/chunk-000/observation.images.front/episode_000003.mp4", episodes[3].frames[:-5], fps=10)
    write_video(root / "videos/chunk-000/observation.images.front/episode_000004.mp4", episodes[4].frames, fps=60)
    summary, store = run(root, tmp_path / "x.zarr", robot)
    assert [entry.source for entry in store.entries] == ["episode_000002", "episode_000004"]
    assert {item["source"]: item["reason"] for item in summary["refused"]} == {
        "episode_000001": "no video of camera front (there: none); set cameras to one of these",
        "episode_000003": (
            "videos/chunk-000/observation.images.front/episode_000003.mp4: 22 frames for 27 states; "
            "frames and states must be of one recording, one frame a row"
        ),
    }
    assert {item["source"]: item["note"] for item in summary["notes"]} == {
        "set": "its metadata names 5 episodes, of which 4 are here",
        "episode_000002": "23 frames for 24 states; the one too many at the end is left out",
        "episode_000004": ("its video's header claims 60 frames a second, its rows run at 10; frames are matched by number"),
    }
    assert in_picture(store, store.entries[1]) < PIXEL


def write_hdf5(path: Path, *, black: bool = False) -> np.ndarray:
    frames = np.zeros((12, 20, 40, 3), np.uint8)
    if not black:
        frames[:, :10, :, 0] = 200  # the upper half is red
        frames[:, 10:, :20, 2] = 200  # the lower left is blue
    with h5py.File(path, "w") as file:
        file["q"] = np.arange(12.0)[:, None] / 100
        file["dq"] = np.ones((12, 1))
        file["speed"] = np.arange(12.0)[:, None]
        rows = [cv2.imencode(".png", frame)[1].ravel() for frame in frames]
        images = file.create_dataset("images", (12,), h5py.vlen_dtype(np.uint8))
        for index, row in enumerate(rows):
            images[index] = row
    return frames


HDF5 = """
name: slider
rate: 6
state: {keys: [q], numbers: [{names: [q], unit: m}]}
action:
  keys: [dq, speed]
  numbers: [{names: [q], unit: cm, meaning: delta}, {names: [v], unit: m/s, meaning: velocity}]
own_numbers: all
cameras: {front: {key: images, bgr: true, crop: [0, 0.5, 0.5, 1]}}
"""


def test_commands_between_kept_rows_are_summed_or_averaged_and_pictures_cropped(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(HDF5)
    write_hdf5(tmp_path / "a.hdf5")
    _, store = run(tmp_path / "a.hdf5", tmp_path / "x.zarr", config.load_robot(tmp_path / "robot.yaml"), fps=2.0)
    (entry,) = store.entries
    assert store.states(entry.key).ravel().tolist() == pytest.approx([0, 0.03, 0.06, 0.09])  # type: ignore[union-attr]
    commands = store.actions(entry.key)
    assert commands is not None
    assert commands[:, 0].tolist() == pytest.approx([0.03] * 4)
    assert commands[:, 1].tolist() == pytest.approx([1, 4, 7, 10])
    # OpenCV coded red-first pixels as if blue came first: the lower left quarter is blue again, at the short side.
    assert (entry.height, entry.width) == (32, 64)
    assert store.frames(entry.key, 0, 4).reshape(-1, 3).min(0).tolist() == [0, 0, 200]


def test_camera_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(HDF5)
    write_hdf5(tmp_path / "a.hdf5", black=True)
    with pytest.raises(InputError, match="camera front shows nothing but black"):
        run(tmp_path / "a.hdf5", tmp_path / "x.zarr", config.load_robot(tmp_path / "robot.yaml"))


def test_arrays_are_taken_for_recordings_only_where_a_robot_is_given(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_hdf5(tmp_path / "in/a.hdf5")
    with pytest.raises(InputError, match="holds no video, no image and no recording"):
        run(tmp_path / "in", tmp_path / "x.zarr", None)
    with pytest.raises(InputError, match=r"nobody says what its numbers are \(there: dq 1, q 1, speed 1\)"):
        run(tmp_path / "in/a.hdf5", tmp_path / "x.zarr", None)
    (tmp_path / "robot.yaml").write_text(HDF5)
    assert run(tmp_path / "in", tmp_path / "x.zarr", config.load_robot(tmp_path / "robot.yaml"))[0]["videos"] == 1


def test_episodes_in_the_droid_layout_may_be_read_as_another_robot(tmp_path: Path) -> None:
    states = np.linspace(0, 0.5, 70).reshape(10, 7)
    write_episode(
        tmp_path / "ep",
        {"wrist": np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3), np.uint8)},
        states=states,
        actions=states,
        rate=5,
        robot="tabletop",
        instruction="",
        write_video=write_video,
    )
    droid = config.load_robot("droid")
    hand = droid.model_copy(update={"end_effector": None, "own_numbers": ("z", "gripper")})
    _, store = run(tmp_path / "ep", tmp_path / "x.zarr", hand, cameras=("wrist",))
    assert np.allclose(store.states(store.entries[0].key), states[:, [2, 6]])  # type: ignore[arg-type]
    assert store.entries[0].robot == "franka"
    assert run(tmp_path / "ep", tmp_path / "y.zarr", None, cameras=("wrist",))[1].entries[0].robot == "tabletop"


def test_the_pose_of_a_droid_camera_lies_beside_its_frames_where_it_was_recorded(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8)
    for name in ("posed", "plain"):
        cameras = {"exterior_1": frames, "wrist": frames}
        states = np.full((6, 7), 0.3)
        write_episode(
            tmp_path / name / "0",
            cameras,
            states=states,
            actions=states,
            rate=5.0,
            robot="arm",
            instruction="",
            write_video=write_video,
        )
    pose = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    with h5py.File(tmp_path / "posed" / "0" / "trajectory.h5", "r+") as file:
        file["observation/camera_extrinsics/10000001_left"][:] = pose
    for name, known in (("posed", [True, False]), ("plain", [False, False])):
        _, store = run(tmp_path / name, tmp_path / f"{name}.zarr", None, cameras=("exterior_1", "wrist"))
        assert [store.extrinsics(entry.key) is not None for entry in store.entries] == known
    posed = VideoStore.open(tmp_path / "posed.zarr")
    first = posed.entries[0].key
    assert np.array_equal(posed.extrinsics(first), pose)  # type: ignore[arg-type]
    assert posed.damage(first) is None


@pytest.mark.parametrize(
    ("folder", "name", "episodes", "width"),
    [("lerobot_v21_g1", "g1", 3, 26), ("lerobot_v20_gr1_sim", "gr1-sim", 5, 26), ("rlds_bridge", "bridge", 25, 7)],
)
def test_real_sets_are_taken_in(shared: Path, tmp_path: Path, folder: str, name: str, episodes: int, width: int) -> None:
    summary, store = run(shared / "data/robot" / folder, tmp_path / "x.zarr", config.load_robot(name), max_frames=12)
    assert (summary["videos"], summary["refused"]) == (episodes, [])
    assert {store.states(entry.key).shape[1] for entry in store.entries} == {width}  # type: ignore[union-attr]
    assert all(entry.num_frames in (10, 12) for entry in store.entries)


def test_real_camera_of_bridge_that_is_blank_is_refused(shared: Path, tmp_path: Path) -> None:
    bridge = config.load_robot("bridge")
    with pytest.raises(InputError, match="none of the 25 sources can be used"):
        run(shared / "data/robot/rlds_bridge", tmp_path / "x.zarr", bridge, cameras=("image_3",))


def test_crop_is_checked() -> None:
    with pytest.raises(ValueError, match="crop"):
        CameraConfig(key="x", crop=(0.5, 0, 0.4, 1))


def test_frame_found_by_time_is_the_one_that_counting_finds(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(100, dtype=np.uint8) * 2, 32 * 32 * 3).reshape(100, 32, 32, 3)
    write_video(tmp_path / "a.mp4", frames, fps=30)
    counted = [(time, pixels) for time, _, pixels in iterate_frames(tmp_path / "a.mp4")]
    for place in (0, 1, 37, 99):
        with open_video(tmp_path / "a.mp4") as video:
            video.seek(place / 30)
            found = list(video.frames(start=place / 30))
        assert [time for time, _, _ in found] == [time for time, _ in counted[place:]]
        assert all(np.array_equal(pixels, other) for (_, _, pixels), (_, other) in zip(found, counted[place:], strict=True))
