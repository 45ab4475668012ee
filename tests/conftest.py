"""What several tests need: the reference data beside the repository, where it is present, and one thread per process."""

import os
import subprocess
import sys
import time
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


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the workflow in a folder, at the smallest size: `snakemake(folder, "--dry-run")`; results lie in `results/` there."""

    def run(folder: Path, *options: str, configfile: Path | None = None) -> subprocess.CompletedProcess[str]:
        place = ["--snakefile", REPOSITORY / "Snakefile", "--directory", folder]
        how = ["--configfile", configfile or REPOSITORY / "tests/workflow/smallest.yaml", "--cores", "2"]
        command = [sys.executable, "-m", "snakemake", *map(str, [*options, *place, *how])]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=600)

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, snakemake: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """A folder in which the workflow has run to its end at the smallest size; whoever changes it works on a copy."""
    folder = tmp_path_factory.mktemp("workflow")
    began = time.monotonic()
    ended = snakemake(folder)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-6000:]
    (folder / "seconds").write_text(f"{time.monotonic() - began:.1f}")
    return folder
