"""What several tests need: the reference data beside the repository, where it is present, and one thread per process."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none is begun when the other processes are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference tensors and real data beside the repository; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the repository")
    return folder


@pytest.fixture(scope="session")
def noise_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video store of three short clips of noise, one of them held out; whoever changes it works on a copy."""
    import numpy as np

    from vjepa2cli.data.video import write_video
    from vjepa2cli.ingestion import ingest
    from vjepa2cli.settings import IngestConfig

    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for name in "abc":
        write_video(folder / f"{name}.mp4", rng.integers(0, 255, (10, 64, 80, 3), dtype=np.uint8), fps=4)
    ingest([folder], folder / "v.zarr", config=IngestConfig(short_side=64, val_fraction=0.3), workers=0)
    return folder / "v.zarr"


@pytest.fixture(scope="session")
def noise_latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of three short episodes of noise, one of them held out."""
    import numpy as np

    from vjepa2cli.artifacts.latent_store import LatentHeader, create

    path = tmp_path_factory.mktemp("latents") / "l.h5"
    header = LatentHeader("model", "digest", True, (1, 2, 2), 8, 4.0, "arm", {"crop": 32, "geometry": "centre"}, {})
    rng = np.random.default_rng(1)
    with create(path, header, lengths=[9, 7, 8], dtype="float16", dims=(7, 7)) as writer:
        for index, length in enumerate((9, 7, 8)):
            states = rng.normal(size=(length, 7)).cumsum(axis=0) * 0.01
            writer.write(index, rng.normal(size=(length, 4, 8)), states=states, actions=np.diff(states, axis=0))
        writer.name_episodes(["a", "b", "c"], ["train", "train", "val"])
    return path


@pytest.fixture(scope="session")
def vjepa2() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own: `vjepa2("config", "list", env={}, cwd=None)`."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vjepa2cli", *map(str, arguments)]
        environment = os.environ | (env or {})
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=900)

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
    """A folder in which the workflow has run to its end at the smallest size; whoever changes it works on a copy.

    The processes of pytest-xdist share one, which the first to ask for it makes.
    """
    from vjepa2cli.artifacts.locks import locked

    ours = tmp_path_factory.getbasetemp()
    folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "workflow"
    folder.mkdir(exist_ok=True)
    with locked(folder):
        if not (folder / "seconds").exists():
            began = time.monotonic()
            ended = snakemake(folder)
            assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-6000:]
            (folder / "seconds").write_text(f"{time.monotonic() - began:.1f}")
    return folder
