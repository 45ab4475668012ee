"""The commands that look and tell: config, weights, doctor."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vjepa2cli import config
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import STEPS

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_every_step_has_a_preset_and_every_preset_is_valid(vjepa2: Command) -> None:
    names = {step: config.preset_names(step) for step in STEPS}
    assert all(names.values()), names
    ended = vjepa2("config", "check", *config.preset_names())
    assert (ended.returncode, ended.stderr) == (0, "")


def test_default_config_of_every_step_exists() -> None:
    assert {f"tiny-{step}" for step in STEPS} <= set(config.preset_names())


def test_config_list_names_each_preset_once_under_its_step(vjepa2: Command) -> None:
    listed = json.loads(vjepa2("config", "list", "--json").stdout)["presets"]
    assert {step: sorted(names) for step, names in listed.items()} == {step: config.preset_names(step) for step in STEPS}


def test_config_show_is_a_config_that_checks_and_shows_the_same(vjepa2: Command, tmp_path: Path) -> None:
    shown = vjepa2("config", "show", "tiny-pretrain", "--set", "optimizer.lr=3e-4").stdout
    (tmp_path / "again.yaml").write_text(shown)
    assert "lr: 0.0003" in shown
    assert vjepa2("config", "show", tmp_path / "again.yaml").stdout == shown


def test_shown_robot_is_a_description_to_begin_with(vjepa2: Command, tmp_path: Path) -> None:
    assert "droid, g1" in vjepa2("config", "list").stdout
    (tmp_path / "mine.yaml").write_text(vjepa2("config", "show", "droid").stdout)
    assert config.load_robot(tmp_path / "mine.yaml") == config.load_robot("droid")


def test_config_resolve_leaves_an_unchanged_file_alone(vjepa2: Command, tmp_path: Path) -> None:
    out = tmp_path / "ingest.yaml"
    assert vjepa2("config", "resolve", "tiny-ingest", "--out", out).returncode == 0
    os.utime(out, ns=(1, 1))
    vjepa2("config", "resolve", "tiny-ingest", "--out", out)
    assert out.stat().st_mtime_ns == 1
    vjepa2("config", "resolve", "tiny-ingest", "--set", "short_side=64", "--out", out)
    assert out.stat().st_mtime_ns != 1
    assert "short_side: 64" in out.read_text()


@pytest.mark.parametrize("arguments", [("config", "list"), ("config", "show", "tiny-plan"), ("config", "check", "tiny-plan")])
def test_json_is_one_object_on_stdout(vjepa2: Command, arguments: tuple[str, ...]) -> None:
    ended = vjepa2(*arguments, "--json")
    assert isinstance(json.loads(ended.stdout), dict)
    assert ended.stderr == ""


def test_weights_list_tells_what_is_here(vjepa2: Command, tmp_path: Path) -> None:
    model = next(iter(RELEASED.values()))
    (tmp_path / model.file_name).touch()
    listed = json.loads(vjepa2("weights", "list", "--json", env={"VJEPA2_HOME": str(tmp_path)}).stdout)["weights"]
    assert {row["name"]: row["url"] for row in listed} == {row.name: row.url for row in RELEASED.values()}
    assert [row["name"] for row in listed if row["present"]] == [model.name]


@pytest.mark.parametrize(("verdicts", "code"), [((True, None), 0), ((True, False), 1)])
def test_doctor_fails_where_one_check_does(verdicts: tuple[bool | None, ...], code: int) -> None:
    script = (
        "import sys\nfrom vjepa2cli import diagnosis\nfrom vjepa2cli.cli import main\n"
        f"checks = [diagnosis.Check(f'thing {{ok}}', ok, 'found', 'do this') for ok in {verdicts!r}]\n"
        "diagnosis.diagnose = lambda: checks\nsys.argv = ['vjepa2', 'doctor', *sys.argv[1:]]\nmain()"
    )
    command = [sys.executable, "-c", script]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (code, "")
    assert ("FAIL  thing False  found; do this" in shown.stdout) is (False in verdicts)
    assert json.loads(subprocess.run([*command, "--json"], capture_output=True, check=False).stdout)["ok"] is (code == 0)
