"""Reading a whole store again and comparing it with what was written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.ingestion.workers import Beat, run_here, run_in_processes
from vjepa2cli.progress import SILENT, Progress


@dataclass(frozen=True)
class _Check:
    store: Path

    def __call__(self, keys: Sequence[str], beat: Beat) -> list[tuple[str, str]]:
        store = VideoStore.open(self.store)
        found = []
        for key in keys:
            if (damage := store.damage(key, beat)) is not None:
                found.append((key, damage))
            beat()
        return found


def verify(store: Path, *, workers: int = 1, patience: float = 120.0, progress: Progress = SILENT) -> dict[str, str]:
    """Read every frame of a store and take its digests again; returns what is wrong with each damaged entry, by key.

    An empty key stands for the store's own index. Raises ArtifactError for what is no finished store.
    """
    opened = VideoStore.open(store)
    keys = [entry.key for entry in opened.entries]
    check, size = _Check(Path(store)), max(1, min(64, len(keys) // max(1, 4 * workers)))
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    progress.start("verify", total=len(keys))
    damaged = {} if opened.index_is_whole else {"": "the list of entries is not what was written"}
    done = run_here(check, batches) if workers == 0 else run_in_processes(check, batches, workers=workers, patience=patience)
    for item in done:
        found = item.result if item.result is not None else [(key, item.lost or "cannot be read") for key in item.item]
        damaged |= dict(found)
        progress.advance(len(item.item))
    progress.finish()
    return damaged
