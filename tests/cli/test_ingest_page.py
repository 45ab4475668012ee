"""The page on ingest: its tables, commands and Python run as written."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli import ingestion
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.cli import app
from vjepa2cli.data.video import write_image, write_video
from vjepa2cli.ingestion import verification
from vjepa2cli.ingestion.workers import run_here

PAGE = Path(__file__).parents[2] / "docs" / "ingest.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def inputs(folder: Path) -> None:
    """What the page speaks of: videos, images, and its two tables."""
    rng = np.random.default_rng(0)
    for name in ("clips/1.mp4", "clips/2.mp4", "more/deep/3.mp4", "long.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        scene = rng.integers(0, 200, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        write_video(folder / name, (scene + np.uint8(frame) for frame in range(32)), fps=4)
        write_image(folder / "pictures" / f"{Path(name).stem}.png", scene)
    (folder / "robot").mkdir()
    write_video(folder / "robot" / "4.mp4", np.zeros((8, 96, 128, 3), np.uint8), fps=4)
    labelled, mixture = blocks("csv")
    (folder / "videos.csv").write_text(labelled)
    (folder / "mixture.csv").write_text(mixture)


def test_commands_and_python_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for module in (ingestion, verification):  # processes of their own have tests elsewhere, and take a second each to start
        monkeypatch.setattr(module, "run_in_processes", lambda work, items, **_: run_here(work, items))
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines() if line.startswith("vjepa2 ")]
    assert len(lines) == 7
    for _, *arguments in lines:
        app(arguments, standalone_mode=False)
    said = capfd.readouterr().out
    assert "a.zarr: whole; every frame has its checksum" in said
    assert "black for 100% of its time" in said
    (code,) = blocks("python")
    found: dict[str, object] = {}
    exec(code, found)
    assert getattr(found["clip"], "shape", None) == (6, 96, 128, 3)
    parts = VideoStore.open("c.zarr").entries
    assert "long.mp4@0s-2.5s" in {entry.source for entry in parts}
    assert {window.label for entry in parts for window in entry.windows} == {"pouring", "stirring", "walking"}
    mixed = VideoStore.open("mixture.zarr").entries
    weights = {
        still: {entry.weight for entry in mixed if entry.split == "train" and entry.still == still} for still in (True, False)
    }
    assert weights == {True: {0.25 / 3}, False: {0.75}}
