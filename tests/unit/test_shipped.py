"""The networks that come with the package: whole, small, told where they come from, and fit to be used where nothing else is."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from vjepa2cli import registry
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.cli import app
from vjepa2cli.cli.sources import is_shipped
from vjepa2cli.config import load, load_any
from vjepa2cli.errors import DependencyError
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.planning.model_card import open_world_model, read_state_space
from vjepa2cli.settings import EvaluateConfig
from vjepa2cli.simulation.offscreen import import_mujoco

REPOSITORY = Path(__file__).parents[2]
LARGEST = 16e6


def test_a_shipped_world_model_brings_its_encoder_and_says_who_trained_them() -> None:
    _, card = open_world_model("tabletop")
    card.require_trained()
    assert card.encoder_digest == encoder_digest(load_encoder("tabletop-encoder"))
    assert read_state_space("tabletop").kind == "end_effector"
    for name in ("tabletop", "tabletop-encoder"):
        told = json.loads((registry.SHIPPED[name].path / "config.json").read_text(encoding="utf-8"))["vjepa2cli"]
        assert told["trained_steps"] > 0
        assert told["provenance"]["config"]["step"] in ("posttrain", "pretrain")
        assert "torch" in told["provenance"]["versions"]


def test_shipped_weights_are_small() -> None:
    assert 0 < registry.SHIPPED["tabletop"].num_bytes < LARGEST


def test_a_path_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert registry.in_place("tabletop") == registry.SHIPPED["tabletop"].path
    assert is_shipped("tabletop")
    (tmp_path / "tabletop").mkdir()
    assert registry.in_place("tabletop") == "tabletop"
    assert not is_shipped("tabletop")


def test_the_example_runs_offline_where_nothing_has_been_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VJEPA2_OFFLINE", "1")
    app(["weights", "example"], standalone_mode=False)
    commands = [shlex.split(line) for line in capfd.readouterr().out.splitlines()]
    assert len(commands) == 2
    for program, *arguments in commands:
        assert program == "vjepa2"
        quickly = ["--set", "cem.samples=24", "--set", "cem.iterations=2"] if len(commands[0]) < len(arguments) else []
        app([*arguments, *quickly], standalone_mode=False)
        report = read_report(tmp_path / "plan.json", "plan")
        assert report["final_energy"] < 0.9 * report["idle_energy"]
    capfd.readouterr()
    without_model = [word for word in commands[0][1:] if word not in ("--model", "tabletop")]
    app(without_model, standalone_mode=False)
    assert "taking the world model that is shipped" in capfd.readouterr().err


def test_it_reaches_image_goals_in_the_simulator(tmp_path: Path) -> None:
    try:
        import_mujoco()
    except DependencyError as error:
        pytest.skip(str(error))
    changes = ["tasks=[reach]", "episodes=3", "num_videos=0", "cem.samples=48", "cem.iterations=3"]
    out = tmp_path / "report.json"
    app(
        ["evaluate", "--model", "tabletop", "--out", str(out), *(part for change in changes for part in ("--set", change))],
        standalone_mode=False,
    )
    report = read_report(out, "evaluation")
    assert report["provenance"]["config"] == load("tabletop-evaluate", EvaluateConfig, overrides=changes).model_dump(mode="json")
    policies = report["results"][0]["policies"]
    assert policies["planner"]["success"]["successes"] == 3
    assert policies["planner"]["final_distance"]["mean"] < 0.25 * policies["random"]["final_distance"]["mean"]


def test_every_file_goes_into_the_package() -> None:
    globs = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    package = REPOSITORY / "vjepa2cli"
    packed = {path for glob in globs["vjepa2cli"] for path in package.glob(glob)}
    assert {path for path in (package / "weights").rglob("*") if path.is_file()} <= packed


def test_presets_of_its_training_are_those_of_the_page() -> None:
    page = (REPOSITORY / "docs" / "planning.md").read_text(encoding="utf-8")
    named = set(re.findall(r"vjepa2 (\w+) [^\n]*--config (tabletop-\w+)", page))
    presets = {path.stem for path in (REPOSITORY / "vjepa2cli" / "presets").glob("tabletop-*.yaml")}
    assert presets == {name for _, name in named}
    assert all(load_any(name).step == step for step, name in named)
