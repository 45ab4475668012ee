"""What a batch system does to a training: two tasks of srun are asked to stop, one is lost, one hangs; it goes on each time."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from vjepa2cli.reporting import report
from vjepa2cli.settings import ReportConfig

pytestmark = pytest.mark.slow
CONFIG = {
    "step": "pretrain",
    "steps": 5000,
    "batch_size": 2,
    "precision": "fp32",
    "checkpoint_every": 10,
    "evaluate_every": 5000,
    "encoder": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "clip": {"num_frames": 4, "fps": None, "crop": 64},
}
BOUND = 60.0
"""Seconds within which whoever is left must have ended."""

Tasks = Sequence[subprocess.Popen[str]]
Srun = Callable[..., AbstractContextManager[Tasks]]


@pytest.fixture
def command(noise_store: Path, tmp_path: Path) -> list[str]:
    """The training, in `run` below the test's folder."""
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML
    words = ["pretrain", noise_store, "--run-dir", tmp_path / "run", "--config", tmp_path / "config.yaml", "--device", "cpu"]
    return [str(word) for word in words]


def steps(run_dir: Path) -> list[int]:
    """The steps that a run has logged."""
    metrics = run_dir / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return [row["step"] for line in lines if line.endswith("}") and "loss" in (row := json.loads(line))]


def wait_for_step(run_dir: Path, step: int, tasks: Tasks) -> None:
    """Wait until a run is past a step."""
    until = time.monotonic() + 120
    while max(steps(run_dir), default=0) < step:
        assert time.monotonic() < until, "too slow"
        assert all(task.poll() is None for task in tasks), tasks[0].communicate()[1]
        time.sleep(0.05)


def checkpoints(run_dir: Path) -> list[int]:
    """The steps of the checkpoints."""
    return sorted(int(path.name.removeprefix("step_")) for path in (run_dir / "checkpoints").iterdir())


def page(run_dir: Path) -> str:
    """What `vjepa2 report` makes of a run as it is now."""
    return report([run_dir], run_dir.with_suffix(".html"), config=ReportConfig()).read_text(encoding="utf-8")


def test_a_run_survives_what_a_cluster_does_to_it(command: list[str], tmp_path: Path, srun: Srun) -> None:
    run_dir = tmp_path / "run"

    with srun(*command) as tasks:
        wait_for_step(run_dir, 12, tasks)
        assert re.search(r"run is running: step \d\d+ of 5000\.", page(run_dir))
        tasks[1].send_signal(signal.SIGUSR1)  # to one of them alone
        ended = [task.communicate(timeout=BOUND) for task in tasks]
        assert [task.returncode for task in tasks] == [75, 75]
        at = checkpoints(run_dir)[-1]
        assert steps(run_dir)[-1] == at
        told = [line for _, said in ended for line in said.splitlines() if "stopped by" in line]
        assert told == [
            f"{run_dir}: stopped by a signal to another process at step {at}, which is saved; run the same command again"
        ]
        assert not (run_dir / "report.json").exists()
        assert f"run has not ended and is not running: step {at} of 5000." in page(run_dir)

    with srun(*command) as tasks:
        wait_for_step(run_dir, at + 12, tasks)
        tasks[1].kill()
        _, said = tasks[0].communicate(timeout=BOUND)
        assert tasks[0].returncode == 1
        assert [line for line in said.splitlines() if "error" in line or "Traceback" in line] == [said.splitlines()[-1]]
        assert "another process of this training has ended or does not answer" in said

    with srun(*command) as tasks:
        wait_for_step(run_dir, steps(run_dir)[-1] + 5, tasks)
        tasks[0].send_signal(signal.SIGSTOP)
        _, said = tasks[1].communicate(timeout=BOUND)
        assert tasks[1].returncode == 1
        assert "does not answer" in said.splitlines()[-1]

    # Whoever goes on takes up the metrics where the last checkpoint is, so that each step is told once.
    assert steps(run_dir) == list(range(1, steps(run_dir)[-1] + 1))
