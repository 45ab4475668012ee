"""What a download is known by: its digest, pinned in a JSON file beside it when it is first seen whole."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vjepa2cli import registry
from vjepa2cli.downloading.transfer import MirrorError
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_file, read_json, write_json

Origin = Literal["official", "hub"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""What a folder for transformers consists of."""

_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


@dataclass(frozen=True)
class Pulled:
    """A released checkpoint that lies here whole: the SHA-256 of its weights, their bytes, and where they came from.

    origin: "official", the file of the release, or "hub", the folder for transformers, whose encoder is the online one; url is ""
    if it lay here before.
    """

    name: str
    origin: Origin
    path: Path
    digest: str
    num_bytes: int
    url: str


def pin_path(path: Path) -> Path:
    """The JSON beside a file or a folder that holds the digests it was first seen with."""
    return path.with_name(f"{path.name}.pin.json")


def pinned(path: Path) -> dict[str, str] | None:
    """The pinned SHA-256 of a file, or of each file of a folder, by file name; None where none is."""
    pin = pin_path(path)
    if not pin.is_file():
        return None
    tree = read_json(pin)
    return dict(tree["files"]) if "files" in tree else {path.name: str(tree["sha256"])}


def pin(path: Path, digests: Mapping[str, str], *, url: str) -> None:
    """Pin what lies at `path`, unless it is pinned."""
    if pinned(path) is not None:
        return
    if path.is_dir():
        write_json(pin_path(path), {"files": dict(digests), "url": url})
    else:
        write_json(pin_path(path), {"sha256": digests[path.name], "bytes": path.stat().st_size, "url": url})


def checked(name: str, path: Path) -> dict[str, str]:
    """The digests of what lies at `path`, pinned now if they never were; raises WeightsError where they are not the pinned ones.

    Of a folder its config and its weights count.
    """
    files = [path / CONFIG, path / WEIGHTS] if path.is_dir() else [path]
    absent = next((file for file in files if not file.is_file()), None)
    if absent is not None:
        raise WeightsError(f"{path}: no {absent.name} in it; remove it and run `vjepa2 weights pull {name}`")
    digests = {file.name: digest_file(file) for file in files}
    known = pinned(path)
    if known is None:
        for file in files:
            try:
                check_whole(file)
            except MirrorError as error:
                reason = str(error).removeprefix("gave ")
                raise WeightsError(f"{file}: is {reason}; remove it and run `vjepa2 weights pull {name}`") from None
        pin(path, digests, url="")
        return digests
    for file in files:
        found, first = digests[file.name][:12], known.get(file.name, "unknown")[:12]
        if found != first:
            raise WeightsError(
                f"{file}: has sha256 {found}, not {first} as when it was first seen; remove {path.name} and run `vjepa2 weights "
                f"pull {name}`, or, if the new one is right, remove {pin_path(path)}"
            )
    return digests


def check_whole(path: Path) -> None:
    """See that a checkpoint is all there by what its own format says of it; raises MirrorError."""
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix != ".json":
        _check_archive(path)


def _check_archive(path: Path) -> None:
    """Hold the checksums in a `.pt` file, which is a zip archive, against what is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise MirrorError(f"gave no whole checkpoint ({error})") from None
    if damaged is not None:
        raise MirrorError(f"gave a damaged checkpoint (the checksum of {damaged} is wrong)")


def _check_safetensors(path: Path) -> None:
    """Hold the sizes in the header of a `.safetensors` file, which has no checksums, against its length."""
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(length, _LONGEST_HEADER)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MirrorError(f"gave no safetensors file ({error})") from None
    whole = 8 + length + max(ends, default=0)
    if path.stat().st_size != whole:
        raise MirrorError(f"gave no whole safetensors file ({path.stat().st_size} of {whole} bytes)")


def describe(model: registry.ReleasedModel, origin: Origin) -> str:
    """What one copy of a released checkpoint is, in a few words that tell it from the other."""
    if origin == "official" or model.hub is None:
        return f"the official file {model.file_name}"
    encoder = "the online encoder, so features are not those of the official file"
    return f"the Hugging Face copy {model.hub.repository}, which holds {encoder}"
