"""Whether this machine is fit: each check really does what a step will do, and a red one says what to install or change."""

from pathlib import Path

from vjepa2cli.diagnosis.check import Check
from vjepa2cli.diagnosis.devices import check_devices
from vjepa2cli.diagnosis.libraries import check_libraries, check_python
from vjepa2cli.diagnosis.pictures import check_codecs, check_simulator
from vjepa2cli.diagnosis.storage import check_cache, check_disk
from vjepa2cli.registry import cache_folder

__all__ = ["Check", "diagnose"]


def diagnose(folder: Path = Path()) -> list[Check]:
    """Try everything that the steps rely on; `folder` is where results will be written. Nothing is printed, nothing raises."""
    return [
        check_python(),
        *check_libraries(),
        *check_devices(),
        *check_codecs(),
        check_simulator(),
        check_disk("disk of results", folder),
        check_disk("disk of the cache", cache_folder()),
        check_cache(),
    ]
