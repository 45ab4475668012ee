"""What ingest finds of a robot's recordings: leads that are known, shifts that were made, numbers that rest, motion outside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.alignment import find_lag
from vjepa2cli.ingestion import ingest
from vjepa2cli.settings import IngestConfig

ROBOT = """
name: slider
rate: 10
state: {keys: [q], numbers: [{names: [slide, turn, idle], unit: rad}]}
action: {keys: [a]MEANING}
own_numbers: all
cameras: {front: {key: frames}}
"""
DELTA = ", numbers: [{names: [slide, turn, idle], unit: rad, meaning: delta}]"


def smooth(rng: np.random.Generator, steps: int) -> np.ndarray:
    return np.convolve(rng.normal(size=steps + 20), np.hanning(12), "same")[10:-10]


@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.3, 3.5])
def test_lag_is_found_between_rows(shift: float) -> None:
    rng, fine = np.random.default_rng(0), 10
    pairs = []
    for _ in range(4):
        signal = np.convolve(rng.normal(size=3000), np.hanning(60), "same")
        first, second = signal[200:2800], signal[200 - round(shift * fine) : 2800 - round(shift * fine)]
        pairs.append((first[::fine], second[::fine]))
    lag = find_lag(pairs, max_lag=6)
    assert lag.rows == pytest.approx(shift, abs=0.12)
    assert lag.correlation > 0.9


def test_no_lag_is_named_where_nothing_is_alike() -> None:
    rng = np.random.default_rng(1)
    lag = find_lag([(rng.normal(size=400), rng.normal(size=400)) for _ in range(4)], max_lag=5, least=0.3)
    assert lag.rows is None
    assert find_lag([(np.zeros(9), np.zeros(9))], max_lag=2).rows is None
    assert find_lag([(np.ones(3), np.ones(3)), (np.ones(0), np.ones(0))], max_lag=5).curve[0] == 0


def record(path: Path, *, lead: int = 1, pictures: int = 0, margin: bool = False, delta: bool = False, seed: int = 0) -> None:
    """A bar stands where `slide` says; commands come `lead` rows before what they ask for, pictures `pictures` rows early."""
    rng, steps = np.random.default_rng(seed), 160
    path_of = np.stack([smooth(rng, steps + 20), smooth(rng, steps + 20), np.zeros(steps + 20)], axis=1) / 8
    states = path_of[10 : 10 + steps]
    targets = path_of[10 + lead : 10 + lead + steps]
    asked = (
        (path_of[11 + lead - 1 : 11 + lead - 1 + steps] - path_of[10 + lead - 1 : 10 + lead - 1 + steps]) if delta else targets
    )
    shown = path_of[10 + pictures : 10 + pictures + steps, 0]
    frames = np.full((steps, 48, 96, 3), 40, np.uint8)
    for frame, place in zip(frames, shown, strict=True):
        column = int((12 if margin else 48) + 40 * np.clip(place, -0.2 if margin else -0.9, 0.2 if margin else 0.9))
        frame[10:38, max(0, column - 3) : column + 3] = 220
    np.savez(path, q=states, a=asked, frames=frames)


def checks(tmp_path: Path, *, delta: bool = False, **changes: Any) -> dict[str, Any]:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        record(tmp_path / "in" / f"{seed}.npz", seed=seed, delta=delta, **changes)
    (tmp_path / "robot.yaml").write_text(ROBOT.replace("MEANING", DELTA if delta else ""))
    robot = config.load_robot(tmp_path / "robot.yaml")
    found = ingest([tmp_path / "in"], tmp_path / "x.zarr", config=IngestConfig(short_side=48, robot=robot), workers=0)["robot"]
    assert found is not None
    assert VideoStore.open(tmp_path / "x.zarr").robot_checks == found
    return found


def about(found: dict[str, Any], word: str) -> list[str]:
    return [warning for warning in found["warnings"] if word in warning]


@pytest.mark.parametrize(("lead", "delta"), [(1, False), (3, False), (1, True), (2, True)])
def test_lead_of_commands_is_found_in_rows_and_seconds(tmp_path: Path, lead: int, delta: bool) -> None:
    alignment = checks(tmp_path, lead=lead, delta=delta)["alignment"]
    assert alignment["lead_rows"] == pytest.approx(lead, abs=0.05)
    assert alignment["lead_s"] == pytest.approx(lead / 10, abs=0.005)
    assert [axis["name"] for axis in alignment["axes"] if axis["lead_rows"] is None] == ["idle"]


def test_commands_after_the_motion_and_commands_of_another_recording_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    (warning,) = about(checks(tmp_path / "late", lead=-2), "commands")
    assert "come 2.0 rows (0.20 s) after the motion" in warning
    (tmp_path / "foreign").mkdir()
    folder = tmp_path / "foreign"
    for seed in range(6):
        record(tmp_path / f"{seed}.npz", seed=seed)
        record(tmp_path / f"{seed + 10}.npz", seed=seed + 10)
        mixed = dict(np.load(tmp_path / f"{seed}.npz")) | {"a": np.load(tmp_path / f"{seed + 10}.npz")["a"]}
        np.savez(folder / f"{seed}.npz", **mixed)
    (tmp_path / "robot.yaml").write_text(ROBOT.replace("MEANING", ""))
    settings = IngestConfig(short_side=48, robot=config.load_robot(tmp_path / "robot.yaml"))
    found = ingest([folder], tmp_path / "y.zarr", config=settings, workers=0)["robot"]
    assert found is not None
    (warning,) = about(found, "commands")
    assert "do not explain the motion at any lag" in warning


def test_states_recorded_as_commands_are_said(tmp_path: Path) -> None:
    alone = ROBOT.replace("MEANING", "").replace("a]", "q]")
    (tmp_path / "robot.yaml").write_text(alone)
    record(tmp_path / "0.npz")
    settings = IngestConfig(short_side=48, robot=config.load_robot(tmp_path / "robot.yaml"))
    found = ingest([tmp_path / "0.npz"], tmp_path / "x.zarr", config=settings, workers=0)["robot"]
    assert found is not None
    assert about(found, "commands") == ["the commands are the states themselves: they were measured, not given"]


def test_pictures_shifted_against_rows_are_warned_of(tmp_path: Path) -> None:
    for name, shift in (("right", 0), ("early", 3)):
        (tmp_path / name).mkdir()
        found = checks(tmp_path / name, pictures=shift)
        assert found["cameras"][0]["lag_rows"] == pytest.approx(shift, abs=0.5)
        warnings = about(found, "frames and rows are shifted")
        assert [f"moves {found['cameras'][0]['lag_rows']:.1f} rows before" in warning for warning in warnings] == [True] * (
            shift > 0
        )


def test_rest_and_motion_outside_the_square_are_warned_of(tmp_path: Path) -> None:
    found = checks(tmp_path, margin=True)
    axes = {axis["name"]: axis for axis in found["coverage"]["axes"]}
    assert axes["idle"]["idle_share"] == 1
    assert axes["slide"]["idle_share"] < 0.3
    assert sum(axes["slide"]["histogram"]["counts"]) == found["steps"] == 3 * 159
    assert about(found, "idle: moves in hardly a step")
    # The picture is twice as wide as high and the bar stays in its left quarter.
    assert found["cameras"][0]["in_centre"] < 0.1
    assert about(found, "outside the central square")
    assert about(found, "only 477 steps")


def test_real_commands_of_droid_lead_by_a_quarter_of_a_second(shared: Path, tmp_path: Path) -> None:
    settings = IngestConfig(short_side=48)
    found = ingest([shared / "data/robot/droid"], tmp_path / "x.zarr", config=settings, workers=0)["robot"]
    assert found is not None
    assert 0.2 <= found["alignment"]["lead_s"] <= 0.27
    assert all(0.2 <= axis["lead_s"] <= 0.3 for axis in found["alignment"]["axes"])
    assert not about(found, "commands")
    # Looked at once: a second run finds them in the store.
    file = tmp_path / "x.zarr/checks/zarr.json"
    before = file.stat().st_mtime_ns
    assert ingest([shared / "data/robot/droid"], tmp_path / "x.zarr", config=settings, workers=0)["robot"] == found
    assert file.stat().st_mtime_ns == before
