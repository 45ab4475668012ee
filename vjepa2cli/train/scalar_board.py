"""Metrics for TensorBoard, beside `metrics.jsonl` and never instead of it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa2cli.errors import DependencyError


class ScalarBoard:
    """Event files in a folder; what a run that goes back writes again takes the place of what it wrote before."""

    def __init__(self, folder: Path) -> None:
        """Raises DependencyError where the library is not installed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise DependencyError(
                "tensorboard: true needs the package tensorboard: pip install 'vjepa2cli[tensorboard]', or drop it; "
                "metrics.jsonl holds the same"
            ) from None
        self._folder, self._writer_class = folder, SummaryWriter
        self._writer: Any = None

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`."""
        self.close()
        self._writer = self._writer_class(str(self._folder), purge_step=step + 1)

    def log(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of one line of metrics: a step's under `train`, an evaluation's under `eval`."""
        if self._writer is None:
            return
        figures = row.get("eval")
        numbers = {"eval": figures} if figures else {"train": {key: value for key, value in row.items() if key != "step"}}
        for group, values in numbers.items():
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{group}/{name}", value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
