"""The page on planning: its commands run as written, and the file that it shows is a file of proposals."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.cli import app
from vjepa2cli.data.video import write_image, write_video
from vjepa2cli.settings import CemConfig

PAGE = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()


def commands(section: str) -> list[list[str]]:
    """The arguments of every command in a section of the page."""
    text = PAGE[PAGE.index(f"## {section}\n") :].split("\n## ")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line) for line in lines]
    assert words
    assert all(command == "vjepa2" for command, *_ in words)
    return [arguments for _, *arguments in words]


@pytest.fixture
def folder(tmp_path: Path, tiny_world_model, training_stores, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page speaks of, under the names that it uses."""
    run = tiny_world_model()
    (tmp_path / "results" / "latents").mkdir(parents=True)
    (tmp_path / "results" / "posttrain").mkdir()
    run.rename(tmp_path / "results" / "posttrain" / "trained")
    for found, place in zip(training_stores, ("latents/trained.h5", "robot.zarr"), strict=True):
        found.rename(tmp_path / "results" / place)
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype=np.uint8)
    for name, frame in zip(("now", "goal", "grasped", "above", "placed"), frames, strict=False):
        write_image(tmp_path / f"{name}.png", frame)
    for name in ("now", "demonstration"):
        write_video(tmp_path / f"{name}.mp4", list(frames), fps=4)
    (tmp_path / "proposals.csv").write_text(re.search(r"```\n(proposal,step.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("section", ["Commands", "What may move", "The search"])
def test_commands_run_as_written(section: str, folder: Path, capfd: pytest.CaptureFixture[str]):
    for arguments in commands(section):
        app(arguments, standalone_mode=False)
        printed = capfd.readouterr().out.splitlines()
        report = read_report(folder / "plan.json", "plan")
        pictures = [arguments[place + 1] for place, word in enumerate(arguments) if word in ("--energy-map", "--film-strip")]
        counts = [int(word.rpartition(":")[2]) for word in arguments if re.search(r"png:\d+$", word)]
        if "--proposals" in arguments:
            assert len(printed) == len(report["proposals"]) == 2
            assert "leaves the box" in next(line for line in printed if line.startswith("proposal 1"))
        elif "--budget-ms" not in arguments:
            horizon = report["provenance"]["config"]["cem"]["horizon"]
            assert len(printed) - len(pictures) == len(report["actions"]) == (sum(counts) or horizon)
        assert all((folder / name).stat().st_size > 1000 for name in pictures)


def test_every_key_that_the_page_names_is_one_of_the_search():
    keys = re.findall(r"^\| `(\w+): ", PAGE, re.MULTILINE)
    assert len(keys) >= 8
    assert set(keys) <= set(CemConfig.model_fields)
    boxes = re.findall(r"--set cem\.(\w+)", PAGE)
    assert set(boxes) <= set(CemConfig.model_fields)
