"""The page on pretraining runs as it is written."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
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
        ended = subprocess.run(
            [str(scripts / words[0]), *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert ended.returncode == 0, (words, ended.stderr[-3000:])
    for name in ("one", "deepspeed"):
        assert (tmp_path / "runs" / name / "report.json").is_file()
    assert "Pretraining" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_names_every_key_that_a_resumed_run_may_change_and_every_figure() -> None:
    import torch

    from vjepa2cli.settings import HealthConfig, PretrainConfig
    from vjepa2cli.train.health import feature_figures

    named = set(re.findall(r"`([a-z_.]+)", PAGE))
    assert set(PretrainConfig.CHANGEABLE) - {"health"} <= named
    assert {f"health.{key}" for key in HealthConfig.model_fields} <= named
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert {*feature_figures(tokens, tokens), "loss", "probe_accuracy"} <= named
