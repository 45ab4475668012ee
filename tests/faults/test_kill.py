"""A workflow that is killed at random moments and started again ends in the bits of one that was left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_workflow_ends_in_the_same_digests(finished_run: Path, tmp_path: Path) -> None:
    """Two kills here, of everything and of Snakemake alone; `kill_dag.py` by hand does more, at any size."""
    # Well below what it took, since the first run of all may have met a cold cache and a busy machine.
    seconds = 0.6 * float((finished_run / "seconds").read_text())
    command = [sys.executable, "tests/faults/kill_dag.py", tmp_path, "--configfile", "tests/workflow/smallest.yaml"]
    command += ["--kills", "2", "--seed", "0", "--reference", finished_run, "--seconds", seconds]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)
    assert found["differ"] == []
    assert found["compared"] > 100
    assert any(kill["where"] != "it had ended" for kill in found["kills"]), found
