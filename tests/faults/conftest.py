"""The command line in this very process, so that a fault costs no start of torch."""

import subprocess
import sys
from collections.abc import Callable
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
