"""What a killed writer left behind goes when the same artefact is written again, and nobody else's work does."""

import os
import subprocess
from pathlib import Path

import pytest

from vjepa2cli.files import replaced_atomically


@pytest.fixture
def ended_pid() -> int:
    """A process number that nothing has any more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_leftovers_of_dead_writers_are_removed(tmp_path: Path, ended_pid: int) -> None:
    target = tmp_path / "latents [1].h5"
    (tmp_path / f"{target.name}.{ended_pid}.partial").write_text("half")
    (tmp_path / f"{target.name}.{ended_pid}.partial.kept").write_text("the user's")
    (tmp_path / f"{target.name}.mine.partial").write_text("the user's")
    (tmp_path / f"{target.name}.{os.getppid()}.partial").write_text("somebody is at it")
    (tmp_path / f"other.h5.{ended_pid}.partial").write_text("of another artefact")
    with replaced_atomically(target) as partial:
        partial.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {
        target.name,
        f"{target.name}.{ended_pid}.partial.kept",
        f"{target.name}.mine.partial",
        f"{target.name}.{os.getppid()}.partial",
        f"other.h5.{ended_pid}.partial",
    }


def test_a_folder_left_over_is_removed(tmp_path: Path, ended_pid: int) -> None:
    (tmp_path / f"model.{ended_pid}.partial").mkdir()
    (tmp_path / f"model.{ended_pid}.partial" / "config.json").write_text("{}")
    with replaced_atomically(tmp_path / "model") as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
