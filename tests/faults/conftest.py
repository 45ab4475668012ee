"""The command line in this very process, so that a fault costs no start of torch, and as two tasks of srun."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from vjepa2cli.cli import main


@pytest.fixture
def inline(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process: `inline("config", "list", env={}, cwd=None)`."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["vjepa2", *words])
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            for library in ("OMP", "MKL", "OPENBLAS"):
                patch.setenv(f"{library}_NUM_THREADS", "1")  # the command sets them too; the patch puts them back
            patch.chdir(cwd or Path.cwd())
            capfd.readouterr()
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


@pytest.fixture
def srun() -> Callable[..., AbstractContextManager[list[subprocess.Popen[str]]]]:
    """Two tasks of a command as srun starts them, with the variables that it sets; none outlives the context."""
    jobs = itertools.count(os.getpid())

    @contextmanager
    def run(*arguments: str | Path) -> Iterator[list[subprocess.Popen[str]]]:
        job, tasks = str(next(jobs)), []
        for rank in ("0", "1"):
            slurm = {"PROCID": rank, "LOCALID": rank, "STEP_NUM_TASKS": "2", "STEP_NODELIST": "localhost", "JOB_ID": job}
            environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
            environment |= {"OMP_NUM_THREADS": "1", "VJEPA2_GROUP_TIMEOUT": "10"}
            words = [sys.executable, "-m", "vjepa2cli", *map(str, arguments)]
            pipe = subprocess.PIPE
            tasks.append(subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True))
        try:
            yield tasks
        finally:
            for task in tasks:
                task.kill()
                task.communicate()

    return run
