"""Released checkpoints onto this machine: resumable, from several mirrors, and known by their digest ever after."""

import logging
import os
from pathlib import Path
from typing import Literal

from vjepa2cli import registry
from vjepa2cli.downloading.hub import pull_folder
from vjepa2cli.downloading.official import pull_file
from vjepa2cli.downloading.pins import WEIGHTS, Origin, Pulled, checked, describe
from vjepa2cli.downloading.transfer import MirrorError, alone
from vjepa2cli.errors import WeightsError
from vjepa2cli.progress import SILENT, Progress

__all__ = ["Pulled", "Wanted", "describe", "is_offline", "pull"]

Wanted = Literal["any", "official", "hub"]

_LOG = logging.getLogger(__name__)

_OFF = ("", "0", "false", "no", "off")


def is_offline(variable: str = "VJEPA2_OFFLINE") -> bool:
    """Whether an environment variable forbids asking servers."""
    return os.environ.get(variable, "").strip().lower() not in _OFF


def pull(name: str, *, wanted: Wanted = "any", offline: bool = False, progress: Progress = SILENT, pause: float = 1.0) -> Pulled:
    """Bring a released checkpoint into the cache folder, or check the copy that lies there, and return it.

    The official file is looked for first, on every mirror, and then its copy on the Hugging Face hub, which is another encoder;
    `wanted` names one of the two. What an earlier try left is gone on with. Digests are pinned when a copy is first seen whole,
    and held against it ever after; `pause` is the seconds before a second try, doubled at each further one. Raises WeightsError
    where the name is unknown, nobody gives it whole, it is another than was pinned, the disk is too small, or, with `offline` or
    $VJEPA2_OFFLINE, it does not lie here.
    """
    model = registry.released(name)
    if wanted == "hub" and model.hub is None:
        raise WeightsError(f"{name}: has no copy on the Hugging Face hub; pull the official file")
    origins: tuple[Origin, ...] = ("official", "hub") if wanted == "any" else (wanted,)
    here = _here(model, origins)
    if here is not None:
        return here
    path = _path(model, origins[0])
    if offline or is_offline():
        forbidden = "VJEPA2_OFFLINE is set" if is_offline() else "--offline is given"
        raise WeightsError(
            f"{name}: is not on this machine, and {forbidden}; run `vjepa2 weights pull {name}` without that, or put {model.url} "
            f"at {registry.cache_folder() / model.file_name}"
        )
    faults: list[str] = []
    for origin in origins:
        if origin == "hub" and model.hub is None:
            continue
        if origin == "hub" and is_offline("HF_HUB_OFFLINE"):
            faults.append("HF_HUB_OFFLINE is set, so the hub is not asked")
            continue
        if faults:
            _LOG.warning("%s: no official file (%s); taking %s", name, "; ".join(faults), describe(model, origin))
        try:
            with alone(_path(model, origin)):
                # Another process may have brought it while this one waited in line.
                return _here(model, (origin,)) or _pull(model, origin, progress=progress, pause=pause)
        except MirrorError as error:
            faults.append(str(error))
    raise WeightsError(
        f"{name}: {'; '.join(faults)}; run the command again to go on, name a mirror in VJEPA2_MIRROR, or put the file at {path}"
    )


def _path(model: registry.ReleasedModel, origin: Origin) -> Path:
    name = model.file_name if origin == "official" or model.hub is None else model.hub.name
    return registry.cache_folder() / name


def _here(model: registry.ReleasedModel, origins: tuple[Origin, ...]) -> Pulled | None:
    """The first of the copies that lies here, checked."""
    for origin in origins:
        path = _path(model, origin)
        if path.exists() and (origin == "official" or model.hub is not None):
            digests = checked(model.name, path)
            weights = path if path.is_file() else path / WEIGHTS
            return Pulled(model.name, origin, path, digests[weights.name], weights.stat().st_size, "")
    return None


def _pull(model: registry.ReleasedModel, origin: Origin, *, progress: Progress, pause: float) -> Pulled:
    if origin == "official" or model.hub is None:
        return pull_file(model, progress=progress, pause=pause)
    return pull_folder(model, model.hub, progress=progress, pause=pause)
