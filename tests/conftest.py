"""What several tests need: the reference data beside the repository, where it is present, and one thread per process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference tensors and real data beside the repository; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the repository")
    return folder


@pytest.fixture(scope="session")
def vjepa2() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own: `vjepa2("config", "list", env={}, cwd=None)`."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vjepa2cli", *map(str, arguments)]
        environment = os.environ | (env or {})
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=300)

    return run
