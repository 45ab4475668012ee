"""Several trainings in one process of a group: `torchrun ... training_group.py PLAN.json`, a list of what to run.

Each item holds `source` (a store or latents), `run_dir`, `config`, and where it is to be interrupted `killed_after` steps.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vjepa2cli import config as configs
from vjepa2cli.settings import PosttrainConfig, PretrainConfig
from vjepa2cli.train.posttraining import posttrain
from vjepa2cli.train.pretraining import pretrain


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
    config = configs.validate(item["config"], where="plan")
    progress = KilledAfter(item.get("killed_after", -1))
    source, run_dir = Path(item["source"]), Path(item["run_dir"])
    try:
        if isinstance(config, PretrainConfig):
            pretrain(source, run_dir, config=config, device="cpu", progress=progress)
        elif isinstance(config, PosttrainConfig):
            posttrain(source, run_dir, config=config, device="cpu", progress=progress)
    except KeyboardInterrupt:
        assert "killed_after" in item


if __name__ == "__main__":
    for planned in json.loads(Path(sys.argv[1]).read_text()):
        train(planned)
