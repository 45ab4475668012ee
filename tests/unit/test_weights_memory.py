"""No weight lies in memory twice: the peak of loading and converting is the network's own size and a little."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROWS = ("load .pt", "load folder", ".pt to transformers", "folder to official")
ROOM = 1.4
"""Of the bytes of the networks, here a quarter of a ViT-L's. What comes on top is the same for every size, the libraries imported
meanwhile and some MiB of mapped pages, and a fifth here; `benchmarks/weights.py` measures the whole ViT-L. Weights that lie there
twice, or a third of them again, would be seen."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel tells no peaks")
def test_the_peak_is_that_of_the_networks_once() -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "weights.py"), "--depth", "6", "--json", "--rows", *ROWS]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=900)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)["rows"]
    assert rows.keys() == set(ROWS)
    assert {row: found["resident"] for row, found in rows.items() if found["resident"] > ROOM} == {}
