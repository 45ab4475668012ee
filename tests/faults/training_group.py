"""Several trainings in one process of a group: `torchrun ... training_group.py PLAN.json`, a list of what to run.

Each item holds `source` (a store or latents), `run_dir` and `config`; `killed_after` steps where it is to be interrupted, and
`refused`, what the error says, where it is not to start.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from vjepa2cli import config as configs
from vjepa2cli.errors import Vjepa2Error
from vjepa2cli.settings import PosttrainConfig, PretrainConfig, ProbeConfig
from vjepa2cli.train.posttraining import posttrain
from vjepa2cli.train.pretraining import pretrain
from vjepa2cli.train.probing import probe


class KilledAfter:
    """A Progress that interrupts the run once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Ignore the beginning."""

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        """Count down."""
        self._left -= count
        if self._left == 0:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """Ignore the end."""


def train(item: dict[str, Any]) -> None:
    """Run one item of a plan."""
    if "refused" in item:
        with pytest.raises(Vjepa2Error, match=item["refused"]) as caught:
            start(item)
        assert caught.value.told is (os.environ["RANK"] != "0")
    elif "killed_after" in item:
        with pytest.raises(KeyboardInterrupt):
            start(item)
    else:
        start(item)


def start(item: dict[str, Any]) -> None:
    """Start the step that the config is for."""
    config = configs.validate(item["config"], where="plan")
    progress = KilledAfter(item.get("killed_after", -1))
    source, run_dir = Path(item["source"]), Path(item["run_dir"])
    if isinstance(config, PretrainConfig):
        pretrain(source, run_dir, config=config, device="cpu", progress=progress)
    elif isinstance(config, PosttrainConfig):
        posttrain(source, run_dir, config=config, device="cpu", progress=progress)
    elif isinstance(config, ProbeConfig):
        probe(source, run_dir, model="none", config=config, device="cpu", progress=progress)


if __name__ == "__main__":
    for planned in json.loads(Path(sys.argv[1]).read_text()):
        train(planned)
