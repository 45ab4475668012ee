"""Wrong inputs end in one line that says what to do, exit code 1, and no half artefact."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.data.video import write_video

Command = Callable[..., subprocess.CompletedProcess[str]]


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The error of a command that failed as it should."""
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert ended.stderr.endswith(errors[0] + "\n")
    return errors[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, vjepa2: Command) -> Path:
    """A small untrained encoder."""
    folder = tmp_path_factory.mktemp("model") / "initial"
    assert vjepa2("weights", "init", "ci-pretrain", "--out", folder).returncode == 0
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A second of noise."""
    rng = np.random.default_rng(0)
    write_video(tmp_path / "noise.mp4", rng.integers(0, 255, (16, 96, 96, 3), dtype=np.uint8), fps=8)
    return tmp_path / "noise.mp4"


@pytest.fixture
def text_named_mp4(tmp_path: Path) -> Path:
    path = tmp_path / "notes.mp4"
    path.write_text("these are words, no frames\n" * 100)
    return path


@pytest.fixture
def truncated(video: Path) -> Path:
    path = video.with_name("truncated.mp4")
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    return path


@pytest.mark.parametrize("wrong", ["text_named_mp4", "truncated"])
def test_encode_refuses_a_file_that_is_no_whole_video(
    inline: Command, model: Path, tmp_path: Path, request: pytest.FixtureRequest, wrong: str
) -> None:
    path = request.getfixturevalue(wrong)
    line = one_line(inline("encode", path, "--model", model, "--out", tmp_path / "out.npz"))
    assert str(path) in line
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("wrong", ["text_named_mp4", "truncated"])
def test_ingest_of_nothing_but_a_damaged_file_leaves_no_store(
    inline: Command, tmp_path: Path, request: pytest.FixtureRequest, wrong: str
) -> None:
    path = request.getfixturevalue(wrong)
    line = one_line(inline("ingest", path, "--out", tmp_path / "out.zarr"))
    assert path.name in line
    assert list(tmp_path.glob("out*")) == []


def test_ingest_lists_a_damaged_file_and_keeps_the_rest(
    inline: Command, tmp_path: Path, video: Path, truncated: Path, text_named_mp4: Path
) -> None:
    ended = inline("ingest", tmp_path, "--out", tmp_path / "out.zarr", "--json")
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["videos"] == 1
    assert {item["source"] for item in summary["refused"]} == {truncated.name, text_named_mp4.name}
    assert all(item["reason"] for item in summary["refused"])


def test_missing_checkpoint(inline: Command, tmp_path: Path, video: Path) -> None:
    line = one_line(inline("encode", video, "--model", tmp_path / "nothing", "--out", tmp_path / "out.npz"))
    assert "nothing" in line
    assert list(tmp_path.glob("out*")) == []


def test_released_checkpoint_that_is_not_here_names_its_url_and_its_place(inline: Command, tmp_path: Path, video: Path) -> None:
    offline = {"VJEPA2_HOME": str(tmp_path), "VJEPA2_OFFLINE": "1"}  # else this brings 5 GB here
    line = one_line(inline("encode", video, "--model", "vjepa2-vitl-256", env=offline))
    assert "https://dl.fbaipublicfiles.com/vjepa2/vitl.pt" in line
    assert str(tmp_path / "vitl.pt") in line


def test_damaged_checkpoint(inline: Command, tmp_path: Path, video: Path, model: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_bytes((model / "config.json").read_bytes())
    (damaged / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    line = one_line(inline("encode", video, "--model", damaged, "--out", tmp_path / "out.npz"))
    assert "damaged" in line
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "optimiser.lr=1e-3"], "did you mean 'optimizer'"),
        (["--set", "optimizer.learning_rate=1e-3"], "optimizer.learning_rate: unknown key"),
        (["--set", "steps=many"], "steps: 'many' is refused"),
        (["--set", "steps"], "write it as key=value"),
        (["--config", "tiny-pretrian"], "did you mean 'tiny-pretrain'"),
        (["--config", "tiny-ingest"], "is a config for step 'ingest'"),
        (["--config", "nowhere.yaml"], "no such config file"),
    ],
)
def test_faulty_config_stops_before_anything_is_made(inline: Command, tmp_path: Path, arguments: list[str], says: str) -> None:
    line = one_line(inline("pretrain", tmp_path / "x.zarr", "--run-dir", tmp_path / "run", *arguments))
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "says"),
    [("0,0,0,0,0,0", "6 numbers"), ("0,0,0,0,0,0,x", "with commas"), ("", "with commas"), ("0,0,0,0,0,0,9", "gripper")],
)
def test_state_that_is_not_seven_numbers(inline: Command, tmp_path: Path, state: str, says: str) -> None:
    images = ["--obs", tmp_path / "a.png", "--goal", tmp_path / "b.png"]
    line = one_line(inline("plan", *images, "--model", tmp_path, "--state", state, "--out", tmp_path / "plan.json"))
    assert says in line
    assert list(tmp_path.iterdir()) == []


def test_plan_without_a_state_says_which_numbers_are_missing(inline: Command, tmp_path: Path) -> None:
    line = one_line(inline("plan", "--obs", "a.png", "--goal", "b.png", "--model", tmp_path, cwd=tmp_path))
    assert "7 numbers: x, y, z" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["pretrain", "absent.zarr", "--run-dir", "run"], "vjepa2 ingest"),
        (["precompute", "absent.zarr", "--model", "m", "--out", "l.h5"], "vjepa2 ingest"),
        (["posttrain", "absent.h5", "--run-dir", "run"], "vjepa2 precompute"),
        (["probe", "absent.zarr", "--model", "m", "--run-dir", "run"], "vjepa2 ingest"),
        (["validate", "absent.h5", "--model", "m", "--out", "v.json"], ""),
        (["evaluate", "--model", "absent", "--out", "e.json"], "absent"),
        (["report", "absent", "--out", "r.html"], "absent"),
        (["ingest", "absent", "--out", "x.zarr"], "absent"),
        (["encode", "absent.mp4", "--model", "m"], "absent.mp4"),
    ],
)
def test_absent_input_names_the_step_that_writes_it(inline: Command, tmp_path: Path, command: list[str], says: str) -> None:
    assert says in one_line(inline(*command, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_below_a_file_is_refused(inline: Command, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    one_line(inline("collect", "--out", tmp_path / place, "--config", "ci-collect"))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
def test_a_run_directory_of_another_config_is_refused_and_left_alone(inline: Command, finished_run: Path) -> None:
    results = finished_run / "results"
    before = {path: path.stat().st_mtime_ns for path in sorted((results / "pretrain").rglob("*"))}
    command = ["pretrain", results / "robot.zarr", "--run-dir", results / "pretrain"]
    line = one_line(inline(*command, "--config", results / "config/pretrain.yaml", "--set", "optimizer.lr=0.5"))
    assert "optimizer.lr" in line
    assert "--replace" in line
    after = {path: path.stat().st_mtime_ns for path in sorted((results / "pretrain").rglob("*"))}
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {results / "pretrain" / ".lease"}


@pytest.mark.slow
def test_planning_on_weights_that_nobody_trained_is_refused(inline: Command, finished_run: Path, tmp_path: Path) -> None:
    results = finished_run / "results"
    images = ["--obs", tmp_path / "a.png", "--goal", tmp_path / "b.png", "--state", "0.4,0,0.2,0,0,0,0"]
    one_line(inline("plan", *images, "--model", results / "pretrain", "--out", tmp_path / "plan.json", cwd=finished_run))
    assert list(tmp_path.iterdir()) == []
