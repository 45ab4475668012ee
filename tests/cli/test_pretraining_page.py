"""The page on pretraining runs as it is written."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "collect": ["episodes=20", "image_size=32"],
    "ingest": ["short_side=32"],
    "pretrain": ["steps=2", "clip.crop=32", "encoder.embed_dim=24", "encoder.depth=1", "encoder.num_heads=2"],
    "probe": ["steps=2", "batch_size=4", "crop=32", "shots=4", "min_class_clips=1", "unseen=drop"],
    "report": [],
    "precompute": ["crop=32"],
    "posttrain": ["steps=2", "predictor.embed_dim=24", "predictor.depth=1", "predictor.num_heads=2"],
    "evaluate": ["episodes=1", "shifts=[goal_light]", "reach.actions=1", "cem.samples=8", "cem.iterations=1"],
}
"""What makes a command small without changing what it does."""
PAGE = (REPOSITORY / "docs" / "pretraining.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_launchers_on_the_page_train(noise_store: Path, tmp_path: Path) -> None:
    shutil.copytree(noise_store, tmp_path / "videos.zarr")
    block = re.search(r"## Launch.*?```bash\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line) for line in block[1].splitlines()]
    assert [line[0] for line in lines] == ["vjepa2", "torchrun", "deepspeed", "srun", "vjepa2"]
    scripts = Path(sys.executable).parent
    for words in lines:
        if words[0] in ("torchrun", "srun"):  # which tests/faults/test_several_processes.py and test_signals.py do
            continue
        shared = ["--set", "zero_stage=1"] if words[0] == "deepspeed" else []  # so that each process leaves its part
        ended = subprocess.run(
            [str(scripts / words[0]), *words[1:], *shared], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900
        )
        assert ended.returncode == 0, (words, ended.stderr[-3000:])
    for name in ("one", "deepspeed"):
        assert (tmp_path / "runs" / name / "report.json").is_file()
    checkpoint = max((tmp_path / "runs" / "deepspeed" / "checkpoints").iterdir())
    assert len(list(checkpoint.glob("optimizer_*.pt"))) == 2  # there were two processes, in one group
    assert "Pretraining" in (tmp_path / "report.html").read_text(encoding="utf-8")


def _run_section(title: str) -> list[str]:
    """Run the first commands of a section, made small, and return their steps in order."""
    from vjepa2cli.cli import app

    section = PAGE[PAGE.index(f"## {title}\n") :].split("\n## ")[0]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line) for line in block[1].replace("\\\n", "").splitlines()]
    for program, *arguments in lines:
        assert program == "vjepa2"
        small = [word for setting in SMALL[arguments[0]] for word in ("--set", setting)]
        # A run of two updates has one checkpoint, its last.
        app([*(re.sub(r"step_\d{8}", "step_00000002", word) for word in arguments), *small], standalone_mode=False)
    return [line[1] for line in lines]


def test_what_is_learnt_runs_from_collect_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vjepa2cli.artifacts.reports import read_report

    monkeypatch.chdir(tmp_path)
    assert _run_section("It learns") == ["collect", "ingest", "pretrain", "probe", "report"]
    names = [result["encoder"] for result in read_report(tmp_path / "learning-probe/report.json")["results"]]
    assert names[:3] == ["trained", "untrained", "pixels"]
    assert len(names) > 3
    assert 'id="probing"' in (tmp_path / "learning.html").read_text(encoding="utf-8")


def test_what_pretraining_does_for_planning_runs_from_collect_to_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vjepa2cli.artifacts.reports import read_report

    monkeypatch.chdir(tmp_path)
    steps = _run_section("What it does for planning")
    assert steps == ["collect", "ingest", "pretrain", *(3 * ["precompute", "posttrain", "evaluate"])]
    for name in ("trained", "untrained", "pixels"):
        assert read_report(tmp_path / f"{name}.json", "evaluation")["encoder"] == name


def test_the_page_names_every_key_that_a_resumed_run_may_change_and_every_figure() -> None:
    import torch

    from vjepa2cli.settings import HealthConfig, PretrainConfig
    from vjepa2cli.train.health import feature_figures

    named = set(re.findall(r"`([a-z_.]+)", PAGE))
    assert set(PretrainConfig.CHANGEABLE) - {"health"} <= named
    assert {f"health.{key}" for key in HealthConfig.model_fields} <= named
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert {*feature_figures(tokens, tokens), "loss", "probe_accuracy"} <= named
