"""Time and memory of each step, from the files that Snakemake's `benchmark:` writes."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa2cli.errors import ArtifactError
from vjepa2cli.reporting import page

_MIB_PER_GIB = 1024


@dataclass(frozen=True)
class Usage:
    """What one job took: seconds on the clock, seconds of all cores, and the most memory in MiB; None where it was not seen."""

    name: str
    seconds: float
    core_seconds: float | None
    memory_mib: float | None


def read_usage(folders: Sequence[Path]) -> list[Usage]:
    """What the last job of every step took, by the files' names; folders that are not there yet have none."""
    files = [file for folder in folders for file in sorted(folder.glob("*.tsv"))]
    return [_read(file) for file in files]


def usage_table(found: Sequence[Usage]) -> str:
    """A row a job, the longest first, and the sum."""
    if not found:
        return ""
    rows = [
        (page.text(job.name), _duration(job.seconds), _duration(job.core_seconds), _memory(job.memory_mib))
        for job in sorted(found, key=lambda job: -job.seconds)
    ]
    cores = [job.core_seconds for job in found if job.core_seconds is not None]
    peak = max((job.memory_mib for job in found if job.memory_mib is not None), default=None)
    rows.append(("<strong>all</strong>", _duration(sum(job.seconds for job in found)), _duration(sum(cores)), _memory(peak)))
    head = ("job", "time", "time of all cores", "most memory")
    words = "Of the last attempt of every job, as Snakemake measured it on the machine that ran it; of several nodes, the first."
    return f"<h3>By rule</h3>{page.paragraph(words, kind='small muted')}{page.table(head, rows, numbers=(1, 2, 3))}"


def _read(file: Path) -> Usage:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            row = list(csv.DictReader(lines, delimiter="\t"))[-1]
        return Usage(file.stem, float(row["s"]), _seen(row.get("cpu_time")), _seen(row.get("max_rss")))
    except (OSError, ValueError, KeyError, IndexError):
        raise ArtifactError(f"{file}: is no benchmark file of Snakemake's; remove it, or name another folder") from None


def _seen(cell: str | None) -> float | None:
    """A number; Snakemake writes NA or 0 for what ended before it looked."""
    return None if cell in (None, "", "NA", "-") else float(cell) or None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _memory(mib: float | None) -> str:
    return "–" if mib is None else f"{mib:.0f} MiB" if mib < _MIB_PER_GIB else f"{mib / _MIB_PER_GIB:.1f} GiB"
