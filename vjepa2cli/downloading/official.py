"""The files of the release: one `.pt` each, from mirrors and then from the official host."""

import logging
import os
from pathlib import Path

from vjepa2cli import registry
from vjepa2cli.downloading.pins import Pulled, check_whole, pin, pinned
from vjepa2cli.downloading.transfer import MirrorError, download
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_bytes, digest_file
from vjepa2cli.progress import Progress

_LOG = logging.getLogger(__name__)

_SCHEMES = ("https://", "http://", "file://")


def urls(model: registry.ReleasedModel) -> list[str]:
    """Where a released file is looked for, in order: below the base URLs in $VJEPA2_MIRROR (spaces between), then at its own.

    Raises WeightsError where a base is no URL.
    """
    relative = model.url.removeprefix(registry.BASE_URL)
    bases = os.environ.get("VJEPA2_MIRROR", "").split()
    wrong = next((base for base in bases if not base.startswith(_SCHEMES)), None)
    if wrong is not None:
        raise WeightsError(f"VJEPA2_MIRROR: {wrong} is no URL that begins with {' or '.join(_SCHEMES)}")
    return [f"{base.rstrip('/')}/{relative}" for base in bases] + [model.url]


def pull_file(model: registry.ReleasedModel, *, progress: Progress, pause: float) -> Pulled:
    """Bring the official file into the cache folder; raises MirrorError, with the fault of each, where no mirror gives it."""
    path = registry.cache_folder() / model.file_name
    faults: list[str] = []
    for url in urls(model):
        partial = path.with_name(f"{path.name}.{digest_bytes(url.encode())[:8]}.partial")
        try:
            download(url, partial, name=model.name, progress=progress, pause=pause)
            digest = _accepted(path, partial)
        except MirrorError as error:
            faults.append(f"{url}: {error}")
            _LOG.info("%s: %s", url, error)
            continue
        partial.replace(path)
        pin(path, {path.name: digest}, url=url)
        for leftover in path.parent.glob(f"{path.name}.*.partial*"):
            leftover.unlink()
        return Pulled(model.name, "official", path, digest, path.stat().st_size, url)
    raise MirrorError("; ".join(faults))


def _accepted(path: Path, partial: Path) -> str:
    """The digest of a download that is the pinned file, or, where none is pinned, a whole one; else it is removed."""
    try:
        digest, known = digest_file(partial), pinned(path)
        if known is None:
            check_whole(partial)
        elif digest != known[path.name]:
            raise MirrorError(f"gave another file (sha256 {digest[:12]}) than was pinned ({known[path.name][:12]})")
    except MirrorError:
        partial.unlink()
        Path(f"{partial}.validator").unlink(missing_ok=True)
        raise
    return digest
