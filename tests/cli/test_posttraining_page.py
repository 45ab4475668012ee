"""The page on precompute and post-training: its commands and its Python run as written, but for fewer updates."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.cli import app
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.settings import PosttrainConfig, PrecomputeConfig, TrainingConfig
from vjepa2cli.train.explanation import explain

PAGE = (Path(__file__).parents[2] / "docs" / "posttraining.md").read_text(encoding="utf-8")
FEWER = {"posttrain": ["--set", "steps=2", "--set", "batch_size=2", "--set", "predictor.depth=1"]}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def make_robot(path: Path) -> None:
    """Three recordings of noise, one of them held out."""
    store, rng = VideoStoreWriter.open(path, {"codec": "none", "shard_frames": 16}), np.random.default_rng(0)
    for key in "abc":
        with store.entry(key) as entry:
            for index in range(10):
                entry.append(index / 4, index, rng.integers(0, 255, (96, 96, 3), np.uint8))
            about = Description(source=key, source_digest=key, episode=key, fps=4.0, robot="arm")
            entry.finish(about, rows={"states": rng.normal(size=(10, 7)).astype(np.float32)})
    store.finalise({key: {"split": "val" if key == "c" else "train", "weight": None} for key in "abc"}, refused=[], provenance={})


def test_commands_and_python_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_robot(tmp_path / "robot.zarr")
    encoder = Encoder(EncoderSpec(24, 1, 2, crop=96), generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "runs" / "pretrain" / "model", *to_transformers(encoder, None))
    monkeypatch.chdir(tmp_path)
    lines = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines() if line.startswith("vjepa2 ")
    ]
    assert len(lines) == 10
    for _, command, *arguments in lines:
        app([command, *arguments, *FEWER.get(command, [])], standalone_mode=False)
    assert LatentStore.open(tmp_path / "parts.h5").digest == LatentStore.open(tmp_path / "latents.h5").digest
    (code,) = blocks("python")
    found: dict[str, np.ndarray] = {}
    exec(code, found)
    assert [found[name].shape for name in ("latents", "states", "actions")] == [(8, 36, 24), (10, 7), (9, 7)]
    assert "not begun" in capfd.readouterr().out
    shutil.rmtree(tmp_path / "runs")


def test_the_page_names_every_key_and_states_the_memory_of_every_preset() -> None:
    named = set(re.findall(r"`([a-z_.]+)`", PAGE))
    assert set(PrecomputeConfig.model_fields) - {"step"} <= named
    own = set(PosttrainConfig.model_fields) - set(TrainingConfig.model_fields) - {"released_quirks"}
    assert own <= named
    rows = re.findall(
        r"^\| `([a-z0-9-]+posttrain[a-z0-9-]*)` \|.*\| ([\d.]+) ([GM])B \+ ([\d.]+) ([GM])B \|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 4
    for name, state, its_unit, activations, their_unit in rows:
        costs = explain(name, overrides=(), tflops=400.0, gpus=None)["costs"]
        scale = {"G": 1e9, "M": 1e6}
        assert float(state) * scale[its_unit] == pytest.approx(costs["state_bytes_per_gpu"], rel=0.03)
        assert float(activations) * scale[their_unit] == pytest.approx(costs["activation_bytes_per_gpu"], rel=0.03)
