"""A run directory: the resolved config, provenance, metrics and checkpoints of one training, held by one job at a time.

Resume state (`checkpoints/step_*/`) and the shareable model (`model/`) are never mixed.
"""

import fcntl
import json
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vjepa2cli import config as configs
from vjepa2cli.errors import StaleArtifactError, TrainingError
from vjepa2cli.files import write_json, write_text
from vjepa2cli.settings import TrainingConfig

_STEP = re.compile(r"step_(\d{8})$")


class RunDirectory:
    """Where one training keeps everything; a context that holds it."""

    def __init__(self, path: Path, *, config: TrainingConfig, provenance: dict[str, Any], leader: bool) -> None:
        """Create or reopen the directory; only the `leader` (rank 0) writes.

        Raises StaleArtifactError where the run was started with another config or other inputs, TrainingError where another
        process holds it.
        """
        self.path, self._leader = path, leader
        self._lease: IO[str] | None = None
        self._checkpoints = path / "checkpoints"
        if leader:
            path.mkdir(parents=True, exist_ok=True)
            self._take_lease()
            try:
                self._check_unchanged(config, provenance)
            except StaleArtifactError:
                self.close()
                raise
            self._checkpoints.mkdir(exist_ok=True)
            for partial in self._checkpoints.glob(".*.partial"):
                shutil.rmtree(partial)
            configs.save(config, path / "config.yaml")
            write_json(path / "provenance.json", provenance)

    def _take_lease(self) -> None:
        self._lease = (self.path / ".lease").open("a")
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise TrainingError(
                f"{self.path}: another process trains in this run directory; wait for it, or choose another --run-dir"
            ) from None

    def _check_unchanged(self, config: TrainingConfig, provenance: dict[str, Any]) -> None:
        saved = self.path / "config.yaml"
        if saved.exists():
            difference = configs.first_difference(configs.load(saved, type(config)), config)
            if difference:
                raise StaleArtifactError(
                    f"{self.path}: was started with another config: {difference}; use a new --run-dir, or --replace to start over"
                )
        known = self.path / "provenance.json"
        if known.exists():
            before, now = json.loads(known.read_text(encoding="utf-8"))["inputs"], provenance["inputs"]
            changed = sorted(name for name in before | now if before.get(name) != now.get(name))
            if changed:
                raise StaleArtifactError(
                    f"{self.path}: was started on other data ({changed[0]} has changed); "
                    "use a new --run-dir, or --replace to start over"
                )

    def latest_step(self) -> int:
        """The step of the newest whole checkpoint, 0 where there is none."""
        return max(
            (int(match[1]) for folder in self._checkpoints.glob("step_*") if (match := _STEP.search(folder.name))), default=0
        )

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint."""
        return self._checkpoints / f"step_{step:08d}"

    def drop_old_checkpoints(self, *, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints."""
        if self._leader:
            for folder in sorted(self._checkpoints.glob("step_*"))[:-keep]:
                shutil.rmtree(folder)

    def rewind_metrics(self, step: int) -> None:
        """Forget metrics after `step`, which the resumed run writes again."""
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

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations logged so far, oldest first, each with its step."""
        rows = [json.loads(line) for line in self._metric_lines()]
        return [{"step": row["step"], **row["eval"]} for row in rows if "eval" in row]

    def close(self) -> None:
        """Release the directory."""
        if self._lease is not None:
            self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
