"""The page on encoding: its commands run as written."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.cli import app
from vjepa2cli.data.video import write_image, write_video
from vjepa2cli.errors import InputError
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import to_transformers

Command = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).parents[2] / "docs" / "encode.md"


def inputs(folder: Path) -> None:
    """What the page speaks of: a model where commands look for one, a video, an image and a folder of both."""
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderSpec(embed_dim=24, depth=2, num_heads=2, crop=64, num_frames=4), generator=generator)
    predictor = Predictor(PredictorSpec(encoder_dim=24, embed_dim=16, depth=1, num_heads=2), generator=generator)
    save_model(folder / "results" / "pretrain" / "model", *to_transformers(encoder, predictor))
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (30, 52, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1) for _ in range(24)]
    write_video(folder / "video.mp4", frames, fps=8)
    write_image(folder / "frame.png", frames[0])
    write_video(folder / "folder" / "video.mp4", frames[:8], fps=8)
    write_image(folder / "folder" / "frame.png", frames[0])


def lines(text: str) -> list[str]:
    """Every line of the commands in a text."""
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def commands(section: str) -> list[list[str]]:
    """The arguments of every command in a section of the page."""
    page = PAGE.read_text()
    text = page[page.index(f"# {section}\n") :].split("\n## ")[0]
    words = [shlex.split(line, comments=True) for line in lines(text) if "|" not in line]
    assert all(command == "vjepa2" for command, *_ in words)
    return [arguments for _, *arguments in words]


SECTIONS = ["Encode", "Inputs", "Modes", "Outputs", "Precision and memory", "Pictures", "Surprise"]


@pytest.mark.parametrize("section", SECTIONS)
def test_commands_run_as_written_and_make_what_they_print(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for arguments in commands(section):
        app(arguments, standalone_mode=False)
        printed = [line for line in capfd.readouterr().out.splitlines() if not line.startswith("most surprising")]
        assert printed
        places = ("--pca", "--similarity-out", "--out", "--plot", "--map")
        wanted = [arguments[place + 1] for place, word in enumerate(arguments) if word in places]
        assert [path for path in (*printed, *wanted) if not Path(path).exists()] == []


def test_pipes_run_as_written(tmp_path: Path) -> None:
    inputs(tmp_path)
    (tmp_path / "vjepa2").write_text(f'#!/bin/sh\nexec {sys.executable} -m vjepa2cli "$@"\n')
    (tmp_path / "vjepa2").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for line in [line for line in lines(PAGE.read_text()) if "|" in line]:
        ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert all((tmp_path / path).exists() for path in ended.stdout.splitlines())


def test_every_command_is_in_a_section_that_runs() -> None:
    written = [line for line in lines(PAGE.read_text()) if not line.startswith("python benchmarks/")]
    piped = [line for line in written if "|" in line]
    assert sum(len(commands(section)) for section in SECTIONS) + len(piped) == len(written)


def test_the_page_names_every_option(vjepa2: Command) -> None:
    page = PAGE.read_text()
    options = re.findall(r"--[a-z-]+", vjepa2("encode", "--help", env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout)
    common = {"--help", "--model", "--config", "--device", "--json"}
    assert [option for option in sorted({*options} - common) if option not in page] == []


def test_a_wrong_point_is_one_line(vjepa2: Command, tmp_path: Path) -> None:
    ended = vjepa2("encode", "video.mp4", "--similarity", "12", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    for point in ("a,b", "1,2,3,4", "nan,1"):
        with pytest.raises(InputError, match=r"120,80,1\.5"):
            app(["encode", "video.mp4", "--similarity", point], standalone_mode=False)
