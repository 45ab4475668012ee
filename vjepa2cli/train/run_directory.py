"""A run directory: the resolved config, provenance, metrics and checkpoints of one training, held by one job at a time.

Resume state (`checkpoints/step_*/`) and the shareable model (`model/`) are never mixed.
"""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vjepa2cli import config as configs
from vjepa2cli.errors import StaleArtifactError
from vjepa2cli.files import write_json, write_text
from vjepa2cli.settings import TrainingConfig
from vjepa2cli.train.lease import Lease
from vjepa2cli.train.scalar_board import ScalarBoard

_STEP = re.compile(r"step_(\d{8})$")


class RunDirectory:
    """Where one training keeps everything; a context that holds it."""

    def __init__(
        self,
        path: Path,
        *,
        config: TrainingConfig,
        provenance: dict[str, Any],
        leader: bool,
        inputs_now: Callable[[], dict[str, str]] | None = None,
    ) -> None:
        """Create or reopen the directory; only the `leader` (rank 0) writes. `inputs_now` reads the inputs' digests again.

        Raises StaleArtifactError where the run was started with another config or other inputs, TrainingError where another
        process holds it.
        """
        self.path, self._leader = path, leader
        self._inputs, self._inputs_now = provenance["inputs"], inputs_now
        self._lease: Lease | None = None
        self._board = ScalarBoard(path / "tensorboard") if leader and config.tensorboard else None
        self._checkpoints = path / "checkpoints"
        if leader:
            path.mkdir(parents=True, exist_ok=True)
            self._lease = Lease(path / ".lease")
            try:
                self._check_unchanged(config)
            except StaleArtifactError:
                self.close()
                raise
            self._checkpoints.mkdir(exist_ok=True)
            for partial in self._checkpoints.glob(".*.partial"):
                shutil.rmtree(partial)
            configs.save(config, path / "config.yaml")
            write_json(path / "provenance.json", provenance)

    def _check_unchanged(self, config: TrainingConfig) -> None:
        saved = self.path / "config.yaml"
        if saved.exists():
            difference = configs.first_difference(configs.load(saved, type(config)), config, allowed=config.CHANGEABLE)
            if difference:
                raise StaleArtifactError(
                    f"{self.path}: was started with another config: {difference}; use a new --run-dir, or --replace to start over"
                )
        known = self.path / "provenance.json"
        if known.exists():
            self._compare(json.loads(known.read_text(encoding="utf-8"))["inputs"], self._inputs, "was started on other data")

    def _compare(self, before: dict[str, str], now: dict[str, str], what: str) -> None:
        for name in sorted(before | now):
            if before.get(name) != now.get(name):
                digests = " -> ".join(str(side.get(name))[:12] for side in (before, now))
                raise StaleArtifactError(
                    f"{self.path}: {what}: the digest of its {name} went from {digests}; "
                    "put them back, use a new --run-dir, or --replace to start over"
                )

    def require_unchanged(self) -> None:
        """Raise StaleArtifactError where the inputs have changed under the run, TrainingError where it lost the directory."""
        if self._lease is not None:
            self._lease.require()
        if self._inputs_now is not None:
            self._compare(self._inputs, self._inputs | self._inputs_now(), "its data have changed under it")

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, or None where there is none."""
        return max(
            (int(match[1]) for folder in self._checkpoints.glob("step_*") if (match := _STEP.search(folder.name))), default=None
        )

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self._checkpoints / f"step_{step:08d}"

    def set_aside(self, step: int) -> int | None:
        """Move a checkpoint that is none to go on from to `faults/`; returns the step of the newest that is left."""
        held = self.path / "faults" / self.checkpoint(step).name
        shutil.rmtree(held, ignore_errors=True)
        held.parent.mkdir(exist_ok=True)
        self.checkpoint(step).rename(held)
        return self.latest_step()

    def drop_old_checkpoints(self, *, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints."""
        if self._leader:
            for folder in sorted(self._checkpoints.glob("step_*"))[:-keep]:
                shutil.rmtree(folder)

    def rewind_metrics(self, step: int) -> None:
        """Forget metrics after `step`, which the resumed run writes again."""
        if self._board is not None:
            self._board.rewind(step)
        if self._leader:
            write_text(
                self.path / "metrics.jsonl", "".join(line for line in self._metric_lines() if json.loads(line)["step"] <= step)
            )

    def _metric_lines(self) -> list[str]:
        metrics = self.path / "metrics.jsonl"
        if not metrics.exists():
            return []
        return [line for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self._leader:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
                metrics.write(json.dumps(row) + "\n")
        if self._board is not None:
            self._board.log(row)

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations logged so far, oldest first, each with its step."""
        return [{"step": row["step"], **row["eval"]} for row in self._rows() if "eval" in row]

    def rollbacks(self) -> list[dict[str, Any]]:
        """All rollbacks so far, oldest first, as they were logged."""
        return [row["rollback"] for row in self._rows() if "rollback" in row]

    def num_skipped(self) -> int:
        """How many clips could not be read, of the steps that count."""
        return sum(len(row["skipped"]) for row in self._rows() if "skipped" in row)

    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._metric_lines()]

    def record_fault(self, step: int, about: dict[str, Any]) -> Path:
        """Write what is known of a fault, the batch or the figures among it; returns the file.

        Figures that are not finite are written as words, which JSON has no numbers for.
        """
        path = self.path / "faults" / f"step_{step:08d}.json"
        if self._leader:
            figures = {name: value if math.isfinite(value) else str(value) for name, value in about.get("figures", {}).items()}
            write_json(path, about | ({"figures": figures} if figures else {}))
        return path

    def close(self) -> None:
        """Release the directory."""
        if self._board is not None:
            self._board.close()
        if self._lease is not None:
            self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
