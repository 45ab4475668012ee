"""Room on disk, and a cache that can be written."""

import shutil
import tempfile
from pathlib import Path

from vjepa2cli.diagnosis.check import Check, one_line
from vjepa2cli.registry import cache_folder

_NEEDED = 4 * 2**30
_COMFORTABLE = 20 * 2**30


def gigabytes(size: int) -> str:
    """A size in bytes, as people read it."""
    return f"{size / 2**30:.1f} GiB"


def check_disk(name: str, folder: Path) -> Check:
    """Free room where `folder` is, or would be made."""
    present = next((parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir()), Path("/"))
    try:
        free = shutil.disk_usage(present).free
    except OSError as error:
        return Check(name, False, f"{present}: {one_line(error)}", "check that the disk is mounted and that you may read it")
    detail = f"{gigabytes(free)} free at {present}"
    if free < _NEEDED:
        return Check(name, False, detail, f"free {gigabytes(_NEEDED - free)} or more, or write to another disk with --out")
    if free < _COMFORTABLE:
        return Check(name, None, detail, "enough for the simulated robot at its default size, not for large sets of video")
    return Check(name, True, detail)


def check_cache() -> Check:
    """Whether released checkpoints can be kept: a file is written there and removed."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"vjepa2cli")
    except OSError as error:
        return Check(
            "cache", False, f"{folder} cannot be written ({one_line(error)})", "set VJEPA2_HOME to a folder that you may write"
        )
    return Check("cache", True, f"{folder} can be written")
