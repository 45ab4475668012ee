"""A store of latents belongs to one encoder, one way of preparing frames and one set of recordings."""

from pathlib import Path

from vjepa2cli import config as configs
from vjepa2cli.artifacts.latent_store.header import LatentHeader
from vjepa2cli.errors import ConfigError, StaleArtifactError


def require_same(path: Path, found: LatentHeader, wanted: LatentHeader) -> None:
    """Raise StaleArtifactError, naming the first difference, where a file was begun for something else than `wanted`."""
    difference = _difference(found, wanted)
    if difference:
        raise StaleArtifactError(f"{path}: was begun with {difference}; use --replace to start over, or another --out")


def _difference(found: LatentHeader, wanted: LatentHeader) -> str | None:
    if found.encoder_digest != wanted.encoder_digest:
        return _changed(
            "another encoder",
            f"{found.encoder_source} ({found.encoder_digest[:12]})",
            f"{wanted.encoder_source} ({wanted.encoder_digest[:12]})",
        )
    if found.recordings_digest != wanted.recordings_digest:
        return _changed("other recordings", str(found.recordings_digest)[:12], str(wanted.recordings_digest)[:12])
    before, now = (header.provenance.get("config") for header in (found, wanted))
    if before == now and found.preprocessing == wanted.preprocessing:
        return None
    try:
        changes = configs.differences(configs.validate(before or {}, where=""), configs.validate(now or {}, where=""))
    except ConfigError:  # of another version of ours
        changes = []
    return _changed(*map(str, changes[0])) if changes else "another configuration"


def _changed(what: str, before: str, now: str) -> str:
    return f"{what}: {before}, now {now}"
