"""Every real file at hand, whole or damaged: features count the frames of a full decode, or one line says why there are none."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.feature_files import read_header
from vjepa2cli.encoding import encode
from vjepa2cli.settings import EncodeConfig

pytestmark = pytest.mark.slow

NUM_FRAMES, CROP = 16, 32
REFUSED_FOR_WHAT_IS_MISSING = {"derived/truncated_60pct_04_coffee.mp4", "libwebm/block_ends_beyond_cluster.mkv"}
"""Files of which a part decodes: features of that part would say nothing of the rest."""


def manifest(folder: Path) -> dict[str, dict[str, str]]:
    """What is known of every file below a folder, by its name there."""
    with (folder.parent / "MANIFEST.csv").open(encoding="utf-8") as handle:
        rows = {row["file"]: row for row in csv.DictReader(handle)}
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {name: rows.get(f"{folder.name}/{name}", {}) for name in names}


@pytest.mark.parametrize("kind", ["videos", "codecs", "hostile"])
def test_features_count_the_frames_of_a_full_decode_or_a_line_says_why_not(
    shared: Path, tiny_encoder: Path, tmp_path: Path, kind: str
):
    folder = shared / "data" / kind
    known = manifest(folder)
    config = EncodeConfig(mode="per-frame", num_frames=NUM_FRAMES, crop=CROP, precision="fp32")
    # A process of its own decodes: one that a file crashes would be named, and is no reason that a file may be refused for.
    summary = encode(folder, model=tiny_encoder, out=tmp_path / "features", config=config, workers=1)
    encoded = {item["source"]: item for item in summary["encoded"]}
    refused = {item["source"]: item["reason"] for item in summary["refused"]}
    assert {*encoded, *refused} == {*known}
    assert not {*encoded} & {*refused}
    frames = {name: int(row.get("frames_decoded") or 0) for name, row in known.items()}
    assert {*refused} == {name for name, count in frames.items() if not count} | REFUSED_FOR_WHAT_IS_MISSING & {*known}
    assert {name: item["num_frames"] for name, item in encoded.items()} == {name: frames[name] for name in encoded}
    assert [reason for reason in refused.values() if "\n" in reason or ";" not in reason or "died" in reason] == []
    for name in encoded:
        path = tmp_path / "features" / f"{name}.npz"
        with np.load(path) as features:
            rows, times = features["features"], features["timestamps"]
        assert rows.shape == (len(times), 24) == (-(-frames[name] // 2), 24)
        assert np.isfinite(rows).all()
        assert times[0] >= 0
        assert (np.diff(times) > 0).all(), name
        header = read_header(path, suffix=".npz")
        assert header is not None
        assert header["source_digest"] == known[name]["sha256"]
