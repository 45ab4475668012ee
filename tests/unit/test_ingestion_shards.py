"""Ingest as several jobs: what the store holds does not depend on how the work was divided."""

from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ArtifactError, StaleArtifactError
from vjepa2cli.ingestion import begin, ingest, ingest_part
from vjepa2cli.settings import IngestConfig

CONFIG = IngestConfig(short_side=16, val_fraction=0.25)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in "abcde":
        (tmp_path / "videos").mkdir(exist_ok=True)
        write_video(tmp_path / f"videos/{name}.mp4", rng.integers(0, 255, (5, 24, 32, 3), dtype=np.uint8), fps=4)
    (tmp_path / "videos/broken.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


def test_parts_in_any_order_give_the_store_of_one_job(videos: Path, tmp_path: Path) -> None:
    whole = ingest([videos], tmp_path / "whole.zarr", config=CONFIG, workers=0)
    out = tmp_path / "parts.zarr"
    counts = [ingest_part([videos], out, part=part, parts=3, config=CONFIG, workers=0) for part in (2, 0)]
    with pytest.raises(ArtifactError):
        VideoStore.open(out)
    counts.append(ingest_part([videos], out, part=1, parts=3, config=CONFIG, workers=0))
    before = {path: path.stat().st_mtime_ns for path in (out / "videos").rglob("frames/**/*") if path.is_file()}
    assert sorted(counts) == [2, 2, 2]
    assert ingest([videos], out, config=CONFIG, workers=0) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_lost_part_is_made_up_for_by_whoever_completes_the_store(videos: Path, tmp_path: Path) -> None:
    ingest_part([videos], tmp_path / "v.zarr", part=0, parts=3, config=CONFIG, workers=0)
    whole = ingest([videos], tmp_path / "whole.zarr", config=CONFIG, workers=0)
    assert ingest([videos], tmp_path / "v.zarr", config=CONFIG, workers=0)["digest"] == whole["digest"]


def test_a_part_under_another_config_is_refused_before_it_takes_anything_in(videos: Path, tmp_path: Path) -> None:
    begin([videos], tmp_path / "v.zarr", config=CONFIG)
    with pytest.raises(StaleArtifactError, match="short_side"):
        ingest_part([videos], tmp_path / "v.zarr", part=0, parts=2, config=IngestConfig(short_side=24), workers=0)
