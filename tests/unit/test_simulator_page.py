"""The page on the simulator: its commands run as written, and the keys and names that it shows are those of the settings."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.cli import app
from vjepa2cli.errors import DependencyError
from vjepa2cli.settings import MotionMix, SceneConfig, ShiftName, TaskName
from vjepa2cli.simulation.offscreen import import_mujoco
from vjepa2cli.simulation.tabletop import ROBOT

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
QUICKLY = {
    "collect": ["episodes=1", "frames_per_episode=4"],
    "evaluate": ["episodes=1", "max_episodes=1", "num_videos=0", "cem.samples=4", "cem.iterations=1", "cem.elites=2"]
    + [f"{task}.actions=1" for task in ("reach", "grasp", "push")]
    + [f"{task}.episodes=1" for task in get_args(TaskName)]
    + ["cloning.steps=5"],
}


@pytest.fixture
def folder(tmp_path: Path, tiny_world_model, training_stores, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page speaks of, under the names that it uses."""
    try:
        import_mujoco()
    except DependencyError as error:
        pytest.skip(str(error))
    run = tiny_world_model(robot=ROBOT)
    (tmp_path / "results" / "latents").mkdir(parents=True)
    (tmp_path / "results" / "posttrain").mkdir()
    run.rename(tmp_path / "results" / "posttrain" / "trained")
    training_stores[0].rename(tmp_path / "results" / "latents" / "trained.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run_as_written(folder: Path) -> None:
    assert len(LINES) == 7
    for number, line in enumerate(LINES):
        command, verb, *arguments = shlex.split(line.replace(" --workers 2", "").replace("recordings", f"recordings-{number}"))
        assert command == "vjepa2"
        changes = [] if "--replay" in arguments else [word for change in QUICKLY[verb] for word in ("--set", change)]
        app([verb, *arguments, *changes], standalone_mode=False)
        if verb == "collect":
            assert (folder / f"recordings-{number}" / "collection.json").is_file()
            continue
        report = read_report(folder / arguments[arguments.index("--out") + 1], "evaluation")
        assert ("cloning" in report["results"][0]["policies"]) is ("--latents" in arguments)
        assert (report["replay"] is not None) is ("--replay" in arguments)
        assert report["replay"] is None or report["replay"]["first_difference"] is None


def test_every_task_shift_and_key_is_told() -> None:
    assert re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE) == list(get_args(TaskName))
    shifts = PAGE[PAGE.index("## Shifts") :].split("## ")[1]
    assert re.findall(r"`(\w+)`[;:]", shifts) == list(get_args(ShiftName))
    scenes = PAGE[PAGE.index("## Scenes") : PAGE.index("## Motions")]
    named = set(re.findall(r"`(\w+)(?:: \w+)?`", scenes))
    assert set(SceneConfig.model_fields) <= named
    motions = PAGE[PAGE.index("## Motions") : PAGE.index("## Tasks")]
    assert all(f"`{name}`" in motions for name in MotionMix.model_fields)
