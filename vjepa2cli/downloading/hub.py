"""The copies on the Hugging Face hub: folders for transformers, whole or absent, held against the digests that the hub states.

Source: the hub answers for a file with its commit and, as the tag of its content, the SHA-256 of a large file or the Git object
id of a small one; https://huggingface.co/docs/huggingface_hub/package_reference/file_download.
"""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO

from vjepa2cli import registry
from vjepa2cli.downloading.pins import CONFIG, WEIGHTS, Pulled, pin, pinned
from vjepa2cli.downloading.transfer import DROPS, HEADERS, TIMEOUT, DroppedError, MirrorError, download, insisted
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_file
from vjepa2cli.progress import SILENT, Progress

_ENDPOINT = "https://huggingface.co"
_TAGS = {40: "git", 64: "sha256"}
"""What a tag of so many hexadecimal digits is."""
_BLOCK = 1 << 20


def endpoint() -> str:
    """The hub's address, or that of a mirror of it in $HF_ENDPOINT; raises WeightsError where that is no URL."""
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _ENDPOINT
    if not address.startswith(("https://", "http://")):
        raise WeightsError(f"HF_ENDPOINT: {address} is no URL that begins with https:// or http://")
    return address


def pull_folder(model: registry.ReleasedModel, hub: registry.HubModel, *, progress: Progress, pause: float) -> Pulled:
    """Bring a hub copy, at the revision of the registry, into the cache folder; raises MirrorError where the hub lacks it.

    The files gather in a folder beside, which takes its name when all are there and have the digests that the hub states.
    """
    path = registry.cache_folder() / hub.name
    gathered = path.with_name(f"{path.name}.partial")
    gathered.mkdir(exist_ok=True)
    base = f"{endpoint()}/{hub.repository}/resolve/{hub.revision}"
    try:
        digests = {}
        for file, shown in ((CONFIG, SILENT), (WEIGHTS, progress)):
            digests[file] = _pull_one(f"{base}/{file}", gathered / file, name=model.name, progress=shown, pause=pause)
    except MirrorError as error:
        raise MirrorError(f"{base}: {error}") from None
    known = pinned(path)
    if known is not None and known != digests:
        for other in gathered.iterdir():
            other.unlink()
        raise MirrorError(f"{base}: gave other files than were pinned")
    for leftover in gathered.glob("*.validator"):
        leftover.unlink()
    gathered.replace(path)
    pin(path, digests, url=base)
    return Pulled(model.name, "hub", path, digests[WEIGHTS], (path / WEIGHTS).stat().st_size, base)


def _pull_one(url: str, partial: Path, *, name: str, progress: Progress, pause: float) -> str:
    """Download one file of a repository and return its SHA-256; raises MirrorError where it is not what the hub states."""
    stated = insisted(lambda: _stated_tag(url), progressed=lambda: False, where=url, pause=pause)
    download(url, partial, name=name, progress=progress, pause=pause)
    digest = digest_file(partial)
    kind = _TAGS[len(stated)]
    found = digest if kind == "sha256" else _git_object_id(partial)
    if found != stated:
        partial.unlink()
        Path(f"{partial}.validator").unlink(missing_ok=True)
        raise MirrorError(f"{partial.name} is damaged or another file ({kind} {found[:12]}, the hub states {stated[:12]})")
    return digest


class _StaysAtHost(urllib.request.HTTPRedirectHandler):
    """Follows a repository that was renamed, but not to where the bytes are stored: that host does not state digests."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            return None
        return urllib.request.Request(newurl, headers=HEADERS, method="HEAD")


def _stated_tag(url: str) -> str:
    """The SHA-256 or the Git object id that the hub states of a file."""
    opener = urllib.request.build_opener(_StaysAtHost)
    try:
        with opener.open(urllib.request.Request(url, headers=HEADERS, method="HEAD"), timeout=TIMEOUT) as response:
            headers: Message = response.headers
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code == 429:
            raise DroppedError(f"HTTP {error.code} {error.reason}") from None
        if not 300 <= error.code < 400:
            raise MirrorError(f"HTTP {error.code} {error.reason}") from None
        headers = error.headers
    except DROPS as error:
        raise DroppedError(f"{getattr(error, 'reason', None) or error or type(error).__name__}") from None
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", tag):
        raise MirrorError("states no digest, so it is no mirror of the hub")
    return tag


def _git_object_id(path: Path) -> str:
    """The id that Git gives a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
