"""A collection is a function of its config: not of the number of workers, of kills, or of what lay there before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.collection import collect, motion_windows
from vjepa2cli.data.video import read_clip
from vjepa2cli.errors import ArtifactError, ConfigError, DependencyError
from vjepa2cli.recordings.droid import find_episodes, read_episode
from vjepa2cli.settings import CollectConfig, MotionMix, SceneConfig
from vjepa2cli.simulation.offscreen import import_mujoco
from vjepa2cli.simulation.tabletop import Tabletop

CONFIG = CollectConfig(episodes=5, frames_per_episode=12, image_size=64)


@pytest.fixture(scope="module", autouse=True)
def _drawing() -> None:
    try:
        import_mujoco()
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection that one process recorded without being disturbed."""
    return collect(tmp_path_factory.mktemp("alone") / "raw", config=CONFIG)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_record_the_same_bytes_as_one(alone: Path, tmp_path: Path) -> None:
    assert contents(collect(tmp_path / "raw", config=CONFIG, workers=2)) == contents(alone)


def test_a_killed_collection_is_completed_to_the_same_bytes(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "raw"
    program = (
        "from pathlib import Path\n"
        "from vjepa2cli.collection import collect\n"
        "from vjepa2cli.settings import CollectConfig\n"
        "if __name__ == '__main__':\n"
        f"    collect(Path({str(out)!r}), config=CollectConfig.model_validate_json({CONFIG.model_dump_json()!r}), workers=2)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE)
    wait_for(lambda: any(out.glob("episode_*")) or run.poll() is not None)
    run.send_signal(signal.SIGKILL)
    # The workers hold stderr open: its end is the end of the last of them, and none may outlive the run.
    _, noise = run.communicate(timeout=120)
    assert run.returncode == -signal.SIGKILL, noise
    (out / "episode_00004.77.partial").mkdir()
    assert not (out / "collection.json").exists()
    assert contents(collect(out, config=CONFIG)) == contents(alone)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_another_config_over_a_collection_is_refused_by_its_first_key(alone: Path) -> None:
    before = contents(alone)
    changed = CONFIG.model_copy(update={"scene": SceneConfig(light_jitter=0.3)})
    with pytest.raises(ConfigError, match=r"another config \(scene\.light_jitter: 0\.1 -> 0\.3\); choose another --out"):
        collect(alone, config=changed)
    assert contents(alone) == before


def test_recordings_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "episode_00000").mkdir()
    with pytest.raises(ArtifactError, match="was not begun by collect"):
        collect(tmp_path, config=CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_00000"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 97}, "image_size: 97 is odd"),
        ({"motions": MotionMix(waypoints=0, autoregressive=0, uniform=0, grasp=0)}, "every share is 0"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        collect(tmp_path / "raw", config=CONFIG.model_copy(update=change))
    assert not (tmp_path / "raw").exists()


def test_episodes_read_back_as_the_arm_moved_and_looked(alone: Path) -> None:
    folders = find_episodes(alone)
    assert [folder.name for folder in folders] == [f"episode_{index:05d}" for index in range(CONFIG.episodes)]
    episode = read_episode(folders[0])
    assert episode.states.shape == (12, 7)
    assert episode.rate == CONFIG.rate
    assert episode.actions is not None
    # What was commanded at t is where the hand is at t + 1.
    assert np.median(np.abs(episode.actions[:-1, :3] - episode.states[1:, :3])) < 0.002
    scene_seed = int(np.random.SeedSequence([CONFIG.seed, 0]).generate_state(1)[0])
    tabletop = Tabletop(image_size=CONFIG.image_size)
    first = tabletop.reset(seed=scene_seed)
    tabletop.close()
    stored = read_clip(episode.videos["exterior_1"])
    assert stored.pixels.shape == (12, 64, 64, 3)
    # Half the colour resolution of 4:2:0 costs more than the compression: 28 dB at 64 px, 34 dB at 96 px.
    error = ((stored.pixels[0].astype(float) - first.frame) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 26
    assert (episode.states[0] == first.state).all()


def test_the_report_names_every_episode_and_counts_the_windows(alone: Path) -> None:
    report = read_report(alone / "collection.json", "collection")
    rows = (alone / "motion_windows.csv").read_text().splitlines()
    assert rows[0] == "video,start_frame,num_frames,label,episode"
    assert sum(report["motion_windows"].values()) == len(rows) - 1
    assert sorted(report["episodes"]) == [folder.name for folder in find_episodes(alone)]
    for row in rows[1:]:
        assert (alone / row.split(",")[0]).is_file()


def test_windows_are_labelled_by_the_axis_that_dominates() -> None:
    states = np.zeros((12, 7), np.float32)
    for label, velocity in {
        "forward": (0.02, 0.004, 0),
        "back": (-0.02, 0, 0.004),
        "left": (0, 0.02, 0),
        "right": (0.004, -0.02, 0),
        "up": (0, 0, 0.02),
        "down": (0, 0.004, -0.02),
        "still": (0.0005, 0, 0),
    }.items():
        states[:, :3] = np.arange(12)[:, None] * np.array(velocity)
        assert list(motion_windows(states)) == [(0, label), (4, label)]


@pytest.mark.parametrize("velocity", [(0.02, 0.015, 0), (0.004, 0, 0), (0, 0, -0.007)])
def test_a_doubtful_window_has_no_label(velocity: tuple[float, float, float]) -> None:
    states = np.zeros((8, 7), np.float32)
    states[:, :3] = np.arange(8)[:, None] * np.array(velocity)
    assert list(motion_windows(states)) == []


def test_a_hand_that_moves_and_returns_is_not_still() -> None:
    states = np.zeros((8, 7), np.float32)
    states[4, 2] = 0.05
    assert list(motion_windows(states)) == []
