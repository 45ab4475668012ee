"""A full disk ends a step in one line that says so, leaves nothing half-written, and the same command goes on afterwards."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]
Resize = Callable[[str], None]
pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A file system of its own, 64 KiB large at first, and what resizes it."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)

    yield folder, resize
    subprocess.run(["umount", "--lazy", folder], check=True)


STEPS = {
    "collect": (["collect", "--config", "{config}"], "--out", "recordings", "recordings/collection.json"),
    "ingest": (["ingest", "{results}/recordings", "--config", "{config}"], "--out", "robot.zarr", None),
    "pretrain": (["pretrain", "{results}/robot.zarr", "--config", "{config}"], "--run-dir", "run", "run/report.json"),
    "precompute": (["precompute", "{results}/robot.zarr", "--config", "{config}"], "--out", "latents.h5", "latents.h5"),
    "posttrain": (["posttrain", "{results}/latents/trained.h5", "--config", "{config}"], "--run-dir", "run", "run/report.json"),
    "probe": (["probe", "{results}/robot.zarr", "--config", "{config}"], "--run-dir", "run", "run/report.json"),
    "encode": (["encode", "{results}/recordings/episode_00000/recordings/MP4"], "--out", "features", "features/encoding.json"),
    "evaluate": (["evaluate", "--config", "{config}"], "--out", "evaluate/report.json", "evaluate/report.json"),
    "report": (["report", "{results}/pretrain/report.json"], "--out", "report.html", "report.html"),
}


BALLAST = {"collect": 48 << 10, "encode": 60 << 10, "evaluate": 60 << 10, "report": 60 << 10}
"""Bytes that are taken beforehand where a step writes little."""


@pytest.mark.parametrize("step", STEPS)
def test_full_disk_is_one_line_and_the_same_command_goes_on(
    vjepa2: Command, finished_run: Path, disk: tuple[Path, Resize], step: str
) -> None:
    folder, resize = disk
    words, option, out, last = STEPS[step]
    results = finished_run / "results"
    places = {"results": str(results), "config": str(results / "config" / f"{step}.yaml")}
    command = [*(word.format(**places) for word in words), option, folder / out]
    (folder / "ballast").write_bytes(bytes(BALLAST.get(step, 0)))
    ended = vjepa2(*command, cwd=finished_run)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.stderr
    assert "disk is full" in errors[0]
    assert "Traceback" not in ended.stderr
    assert not (folder / out / "model").exists()
    assert last is None or not (folder / last).exists()
    resize("200m")
    again = vjepa2(*command, cwd=finished_run)
    assert again.returncode == 0, again.stderr
    leftovers = [path for path in folder.rglob("*") if ".partial" in path.name]
    assert leftovers == []
    if step in ("pretrain", "posttrain", "probe"):
        kind = {"pretrain": "pretrain", "posttrain": "posttrain/trained", "probe": "probe"}[step]
        undisturbed = json.loads((results / kind / "report.json").read_text())
        assert json.loads((folder / "run/report.json").read_text())["digest"] == undisturbed["digest"]


def test_full_disk_at_a_checkpoint_of_two_processes_leaves_the_last_good_one(
    noise_store: Path, disk: tuple[Path, Resize], tmp_path: Path, srun: Callable[..., AbstractContextManager[Any]]
) -> None:
    folder, resize = disk
    resize("1200k")  # which holds one checkpoint, of some 840 KiB, and not two
    size = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    tree: dict[str, Any] = {"step": "pretrain", "steps": 12, "batch_size": 2, "checkpoint_every": 4, "zero_stage": 2}
    tree |= {"encoder": size, "predictor": size, "clip": {"num_frames": 4, "fps": None, "crop": 64}}
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    command = ["pretrain", noise_store, "--run-dir", folder / "run", "--config", tmp_path / "config.yaml", "--device", "cpu"]
    with srun(*command) as tasks:
        said = [task.communicate(timeout=600)[1] for task in tasks]
        assert [task.returncode for task in tasks] == [1, 1], said
    told = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, said
    assert "disk is full" in told[0]
    assert [path.name for path in (folder / "run" / "checkpoints").iterdir()] == ["step_00000004"]
    resize("20m")
    with srun(*command) as tasks:
        said = [task.communicate(timeout=600)[1] for task in tasks]
        assert [task.returncode for task in tasks] == [0, 0], said
    assert "4 of them done before" in said[0]
