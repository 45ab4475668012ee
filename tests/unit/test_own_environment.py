"""The page on one's own environment: what it shows runs as written, and a Gymnasium environment behaves as one of ours."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import vjepa2cli as vj
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.cli import app
from vjepa2cli.config import load_robot
from vjepa2cli.errors import InputError, PlanningError
from vjepa2cli.settings import CemConfig, EvaluateConfig

PAGE = (Path(__file__).parents[2] / "docs" / "own-environment.md").read_text(encoding="utf-8")
SMALL = CemConfig(samples=8, iterations=1, elites=2)
DOT_SPACE = {
    "kind": "own",
    "names": ["x", "y"],
    "units": ["m", "m"],
    "wraps": [False, False],
    "limits": [None, None],
    "usual_change": [0.1, 0.1],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, in the current folder."""
    dot, record, _ = blocks("python")
    (robot,) = blocks("yaml")
    for name, content in (("dot.py", dot), ("record.py", record), ("dot.yaml", robot)):
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(verb: str) -> list[str]:
    (line,) = (line for line in blocks("bash")[0].splitlines() if line.startswith(f"vjepa2 {verb} "))
    return shlex.split(line)[1:]


def test_recordings_are_made_and_taken_in_as_the_page_says(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "record.py", "3"], check=True, cwd=folder)
    app(command("ingest"), standalone_mode=False)
    assert "episode_0002" in capfd.readouterr().out or (folder / "dot.zarr" / "zarr.json").is_file()
    with np.load("recordings/episode_0001.npz") as episode:
        assert np.abs(np.diff(episode["states"], axis=0)).max() <= 0.1 + 1e-6
        assert np.abs(np.diff(episode["frames"].astype(int), axis=0)).max() > 100
    assert load_robot("dot.yaml").name == "dot"


def test_the_suite_is_evaluated_by_name_and_plays_as_its_environment_does(folder: Path, tiny_world_model) -> None:
    tiny_world_model(robot="dot", state_space=DOT_SPACE, action_dim=2, state_dim=2)
    arguments = command("evaluate")
    place = arguments.index("--latents")
    small = ["--set", "episodes=2", "--set", "cem.samples=8", "--set", "cem.elites=2", "--device", "cpu"]
    app([*arguments[:place], *arguments[place + 2 :], *small], standalone_mode=False)
    (result,) = read_report(folder / "evaluation.json", "evaluation")["results"]
    assert (result["task"], result["settings"]) == ("touch", {})
    assert result["policies"]["expert"]["success"]["rate"] == 1
    assert read_report(folder / "evaluation.json")["protocol"]["version"] == "dot 1"
    for row in result["episodes"]:
        assert np.shape(row["actions"]) == (8, 2)
        assert np.abs(row["actions"]).max() <= 0.1 + 1e-6
    app(command("report"), standalone_mode=False)
    assert "touch" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [{"robot": "tabletop"}, {"rate": 5.0}])
def test_a_model_of_another_robot_or_rate_is_refused(folder: Path, tiny_world_model, changes: dict[str, Any]) -> None:
    settings = {"robot": "dot", "state_space": DOT_SPACE, "action_dim": 2, "state_dim": 2} | changes
    config = EvaluateConfig(environment="dot.py:suite", tasks=("touch",), episodes=1, cem=SMALL)
    with pytest.raises(PlanningError, match=r"its robot is 'tabletop', .* is 'dot'|takes 4 actions a second"):
        vj.evaluate(tiny_world_model(**settings), folder / "e.json", config=config)


class Counter(gymnasium.Env[np.ndarray, np.ndarray]):
    """Its state counts the steps; it ends at `end`, and is cut at `cut`."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium declares it so.

    def __init__(self, *, end: int = 99, cut: int = 99, frame: object = None) -> None:
        self.end, self.cut, self.count = end, cut, 0
        self.frame = np.zeros((8, 8, 3), np.uint8) if frame is None else frame

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.count = 0
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.full(1, self.count), 0.0, self.count >= self.end, self.count >= self.cut, {"given": action}

    def render(self) -> object:
        return self.frame


def adapted(rate: float | None = 4, **changes: Any) -> vj.GymnasiumEnvironment:
    return vj.GymnasiumEnvironment(
        Counter(**changes), state=lambda seen: seen, action=lambda change, state: change / 0.1 + state, rate=rate
    )


def test_actions_are_turned_from_the_state_and_an_ended_episode_stays_as_it_is() -> None:
    environment = adapted(end=2)
    environment.reset(seed=0)
    environment.step(np.full(1, 0.3))
    assert environment.info["given"] == pytest.approx(3.0)
    environment.step(np.full(1, 0.3))
    assert environment.info["given"] == pytest.approx(4.0)
    assert environment.step(np.full(1, 0.3)).state == 2
    assert environment.reset(seed=1).state == 0
    assert environment.step(np.full(1, 0.3)).state == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cut": 1}, r"truncated\); raise its max_episode_steps"),
        ({"frame": np.zeros((8, 8), np.uint8)}, r"render: gave uint8 \[8, 8\]"),
        ({"frame": ["text"]}, "render: gave list"),
        ({"rate": None}, "rate: the environment's metadata name no render_fps"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(changes: dict[str, Any], reason: str) -> None:
    def one_step() -> None:
        environment = adapted(**changes)
        environment.reset(seed=0)
        environment.step(np.zeros(1))

    with pytest.raises(InputError, match=reason):
        one_step()
