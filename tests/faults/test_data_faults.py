"""What befalls a training in one process: a shard that cannot be read, another store by now, a signal to end."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.config import validate
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ArtifactError, StaleArtifactError, StoppedError
from vjepa2cli.ingestion import ingest
from vjepa2cli.settings import IngestConfig, PretrainConfig
from vjepa2cli.train.pretraining import pretrain

PRETRAIN: dict[str, Any] = {
    "step": "pretrain",
    "steps": 12,
    "batch_size": 2,
    "precision": "fp32",
    "checkpoint_every": 4,
    "evaluate_every": 12,
    "encoder": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "clip": {"num_frames": 4, "fps": None, "crop": 64},
}


def config(**changes: Any) -> PretrainConfig:
    """The config above, changed."""
    found = validate(PRETRAIN | changes, where="test")
    assert isinstance(found, PretrainConfig)
    return found


@pytest.fixture
def store(noise_store: Path, tmp_path: Path) -> Path:
    """A store to be harmed."""
    return Path(shutil.copytree(noise_store, tmp_path / "v.zarr"))


def test_an_unreadable_shard_stops_the_run_by_name_or_is_told_and_skipped(store: Path, tmp_path: Path) -> None:
    harmed = next(entry.key for entry in VideoStore.open(store).entries if entry.split == "train")
    shard = store / "videos" / harmed / "frames" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 255
    shard.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"{harmed}/frames cannot be read"):
        pretrain(store, tmp_path / "run", config=config(clip=PRETRAIN["clip"] | {"num_frames": 10}), device="cpu")
    told = config(clip=PRETRAIN["clip"] | {"num_frames": 10}, unreadable="skip")
    report = read_report(pretrain(store, tmp_path / "run", config=told, device="cpu"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    skipped = [reason for row in rows for reason in row.get("skipped", ())]
    assert report["skipped_clips"] == len(skipped) > 0
    assert all(harmed in reason for reason in skipped)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))


class AtStep:
    """A Progress that does something after a step."""

    def __init__(self, step: int, act: Any) -> None:
        self._left, self._act = step, act

    def start(self, description: str, *, total: int, done: int = 0) -> None: ...

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self._left -= count
        if self._left == 0:
            self._act()

    def finish(self) -> None: ...


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_is_asked_to_end_saves_its_step_and_goes_on_as_if_it_had_not_been(
    noise_store: Path, tmp_path: Path, asked: signal.Signals
) -> None:
    def ask() -> None:
        os.kill(os.getpid(), asked)

    with pytest.raises(StoppedError, match=f"stopped by {asked.name} at step 7, which is saved; run the same command again"):
        pretrain(noise_store, tmp_path / "asked", config=config(), device="cpu", progress=AtStep(6, ask))
    checkpoints = sorted(path.name for path in (tmp_path / "asked" / "checkpoints").iterdir())
    assert checkpoints == ["step_00000004", "step_00000007"]
    ends = [read_report(pretrain(noise_store, tmp_path / name, config=config(), device="cpu")) for name in ("asked", "alone")]
    assert ends[0]["digest"] == ends[1]["digest"]


def test_a_store_that_another_ingest_adds_to_under_the_run_is_refused_with_both_digests(
    store: Path, noise_store: Path, tmp_path: Path
) -> None:
    before = VideoStore.open(store).digest
    write_video(tmp_path / "more.mp4", np.random.default_rng(1).integers(0, 255, (10, 64, 80, 3), dtype=np.uint8), fps=4)

    def add() -> None:
        ingest([tmp_path / "more.mp4"], store, config=IngestConfig(short_side=64, val_fraction=0.3), workers=0)

    with pytest.raises(StaleArtifactError, match=f"data have changed under it: .*videos went from {before[:12]} -> ") as told:
        pretrain(store, tmp_path / "run", config=config(), device="cpu", progress=AtStep(6, add))
    changed = VideoStore.open(store)
    assert len(changed.entries) == len(VideoStore.open(noise_store).entries) + 1
    assert changed.digest[:12] in str(told.value)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step_00000004"]
    with pytest.raises(StaleArtifactError, match="was started on other data"):
        pretrain(store, tmp_path / "run", config=config(), device="cpu")
    shutil.rmtree(store)
    shutil.copytree(noise_store, store)
    pretrain(store, tmp_path / "run", config=config(), device="cpu")
