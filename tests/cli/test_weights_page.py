"""The page on weights: its commands run as written, against a mirror of files that are as wide as the released ones."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vjepa2cli.cli import app
from vjepa2cli.data.video import write_video
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec
from vjepa2cli.models.weights import load_encoder, load_probe, load_world_model_parts, state_digest
from vjepa2cli.registry import RELEASED

Command = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).parents[2] / "docs" / "weights.md"


def wrapped(network: nn.Module, prefix: str = "module.backbone.") -> Mapping[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def inputs(folder: Path, mirror: Path) -> None:
    """A mirror with a ViT-L of one block and its probe, and what lies in the folder: a video, and a world model in one file."""
    (mirror / "evals").mkdir(parents=True)
    encoder = Encoder(EncoderSpec(1024, 1, 16), generator=torch.Generator().manual_seed(1))
    head = Predictor(PredictorSpec(1024, 384, 1, 12, num_mask_tokens=10))
    tree = {"encoder": wrapped(Encoder(EncoderSpec(1024, 1, 16))), "target_encoder": wrapped(encoder), "predictor": wrapped(head)}
    torch.save(tree, mirror / RELEASED["vjepa2-vitl-256"].file_name)
    probe = AttentiveProbe(ProbeSpec(1024, num_classes=174, depth=1))
    torch.save({"classifiers": [wrapped(probe, "module.")]}, mirror / "evals" / RELEASED["ssv2-vitl-256"].file_name)
    ac = AcPredictor(AcPredictorSpec(44, 32, 1, 16))
    torch.save({"encoder": wrapped(Encoder(EncoderSpec(44, 1, 22))), "predictor": wrapped(ac)}, folder / "ac.pt")
    rng = np.random.default_rng(0)
    write_video(folder / "video.mp4", [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(20)], fps=8)


def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here").mkdir()
    inputs(tmp_path / "here", tmp_path / "mirror")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VJEPA2_MIRROR", f"file://{tmp_path / 'mirror'}")
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]
    commands = [arguments for command, *arguments in lines if command == "vjepa2"]
    assert len(commands) >= 12
    for arguments in commands:
        app(arguments, standalone_mode=False)
        printed = capfd.readouterr().out
        assert printed, arguments
        if "--json" in arguments:
            json.loads(printed)
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.pt")) == ["ssv2-vitl-16x2x3.pt", "vitl.pt"]
    for folder, file in (("classifier", "classifier.pt"), ("encoder", "encoder.pt")):
        assert state_digest(load_encoder(folder)) == state_digest(load_encoder(file, load_encoder(folder).spec.num_heads))  # type: ignore[union-attr]
    assert state_digest(load_probe("classifier")) == state_digest(load_probe("ssv2-vitl-256"))
    assert state_digest(load_encoder("classifier")) == state_digest(load_encoder("vjepa2-vitl-256"))
    assert state_digest(load_encoder("again")) == state_digest(load_encoder("encoder")) != state_digest(load_encoder("slim"))
    assert load_world_model_parts("world-model")[1].spec.num_heads == 16


def test_the_page_on_weights_names_every_command_and_option(vjepa2: Command) -> None:
    page = PAGE.read_text()
    for command in ("list", "pull", "inspect", "convert", "init", "example"):
        assert f"vjepa2 weights {command}" in page
    options = re.findall(r"--[a-z-]+", vjepa2("weights", "convert", "--help", env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout)
    assert [option for option in set(options) - {"--help"} if option not in page] == []
