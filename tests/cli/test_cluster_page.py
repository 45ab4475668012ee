"""The page on clusters: the commands that foretell a run do what it says, in the order in which it has them."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/cluster.md").read_text()


@pytest.mark.slow
def test_the_rates_of_a_machine_are_measured_and_a_run_is_foretold(
    vjepa2: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    lines = re.findall(r"^vjepa2 (doctor --bench .*?|config cost .*?)(?: *#.*)?$", PAGE, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["doctor", "config"]
    for line in lines:
        ended = vjepa2(*shlex.split(line), cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    rows = {row[0]: row[1:] for row in map(str.split, ended.stdout.splitlines()) if row}
    assert {"collect", "pretrain", "precompute", "posttrain", "all"} < rows.keys()
    assert rows["precompute"][0] == "3"
    refused = vjepa2("config", "cost", "tiny-pretrain", "--rates", "rates.json", "--gpus", "pretrian=8", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--gpus: 'pretrian=8' is not STEP=N" in refused.stderr
