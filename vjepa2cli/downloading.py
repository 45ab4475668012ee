"""Released checkpoints onto this machine: resumable, from several mirrors, and known by their digest ever after.

The standard library's client is used: one file in one stream needs no more, and it honours the environment's proxy variables.
"""

import fcntl
import http.client
import logging
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import digest_bytes, digest_file, read_json, write_json
from vjepa2cli.progress import SILENT, Progress

_LOG = logging.getLogger(__name__)

_BLOCK = 1 << 18
_MEBIBYTE = 1 << 20
_TRIES = 5
"""Tries at one mirror without a new byte; a try that brought some starts the count anew."""
_TIMEOUT = 30.0
"""Seconds without an answer or a byte, after which a connection counts as dropped."""
_LONGEST_PAUSE = 30.0
_SCHEMES = ("https://", "http://", "file://")
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 206, 416, 429
_SERVER_ERRORS = 500


@dataclass(frozen=True)
class Pulled:
    """A released file that lies here whole: its SHA-256, its bytes, and where it came from ("" if it lay here before)."""

    name: str
    path: Path
    digest: str
    num_bytes: int
    url: str


class _MirrorError(Exception):
    """One mirror cannot give the file; the next one may."""


class _DroppedError(Exception):
    """A connection ended early; another may go on where it stopped."""


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


def pin_path(model: registry.ReleasedModel) -> Path:
    """The JSON beside the file that holds the digest it was first seen with."""
    return registry.cache_folder() / f"{model.file_name}.pin.json"


def pull(name: str, *, offline: bool = False, progress: Progress = SILENT, pause: float = 1.0) -> Pulled:
    """Bring a released checkpoint into the cache folder, or check the one that lies there, and return it.

    What an earlier try left is gone on with. The digest is pinned when a file is first seen whole, and held against it ever
    after; `pause` is the seconds before a second try, doubled at each further one. Raises WeightsError where the name is
    unknown, no mirror gives the file whole, it is another file than was pinned, the disk is too small, or, with `offline`, it
    does not lie here.
    """
    model = registry.released(name)
    path = registry.cache_folder() / model.file_name
    if path.is_file():
        return Pulled(name, path, _checked(model, path), path.stat().st_size, "")
    if offline:
        raise WeightsError(f"{name}: is not on this machine; put {model.url} at {path}, or pull it without --offline")
    path.parent.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    for url in urls(model):
        partial = path.with_name(f"{path.name}.{digest_bytes(url.encode())[:8]}.partial")
        try:
            with _held(partial) as handle:
                _download(url, handle, name=name, progress=progress, pause=pause)
                os.fsync(handle.fileno())
                digest = _accepted(model, partial)
                partial.replace(path)
        except _MirrorError as error:
            faults.append(f"{url}: {error}")
            _LOG.info("%s: %s", url, error)
            continue
        _pin(model, path, digest, url)
        for leftover in path.parent.glob(f"{path.name}.*.partial*"):
            leftover.unlink()
        return Pulled(name, path, digest, path.stat().st_size, url)
    raise WeightsError(
        f"{name}: {'; '.join(faults)}; run the command again to go on, name a mirror in VJEPA2_MIRROR, or put the file at {path}"
    )


@contextmanager
def _held(partial: Path) -> Iterator[IO[bytes]]:
    """The partial file, opened to go on with, and held by this process alone."""
    with partial.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have finished and renamed it meanwhile: what is open here is then the whole file.
            ours = partial.exists() and partial.stat().st_ino == os.fstat(handle.fileno()).st_ino
        except BlockingIOError:
            ours = False
        if not ours:
            raise WeightsError(f"{partial}: another pull writes it; run this one again when that one has ended")
        yield handle


def _download(url: str, handle: IO[bytes], *, name: str, progress: Progress, pause: float) -> None:
    """Append to `handle` until the file is whole; raises _MirrorError where this mirror cannot give it."""
    tries, fault, furthest = 0, "", handle.tell()
    try:
        while tries < _TRIES:
            if tries:
                time.sleep(min(pause * 2 ** (tries - 1), _LONGEST_PAUSE))
            try:
                _continue(url, handle, name=name, progress=progress)
                return
            except _DroppedError as error:
                fault = str(error)
                _LOG.info("%s: %s; trying again", url, fault)
            tries = 1 if handle.tell() > furthest else tries + 1
            furthest = max(furthest, handle.tell())
    finally:
        progress.finish()
    raise _MirrorError(f"{fault}, {_TRIES} times in a row")


def _continue(url: str, handle: IO[bytes], *, name: str, progress: Progress) -> None:
    """One connection: ask for what is missing, and append what comes; raises _DroppedError where it ends early."""
    validator = Path(f"{handle.name}.validator")
    done = handle.tell()
    headers = {"User-Agent": "vjepa2cli"}
    if done and validator.is_file():
        headers |= {"Range": f"bytes={done}-", "If-Range": validator.read_text(encoding="utf-8")}
    else:
        done = _restart(handle)
    try:
        # An opener of its own: `urlopen` keeps the proxies that the process began with.
        opener = urllib.request.build_opener()
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise _MirrorError(f"leads to {response.url}, which is not encrypted")
            if done and response.status != _PARTIAL_CONTENT:
                done = _restart(handle)
            total = _total(response.headers, done=done)
            _check_space(handle, total - done if total is not None else 0)
            # A weak tag does not promise the same bytes.
            tag = response.headers.get("ETag", "")
            validator.write_text("" if tag.startswith("W/") else tag or response.headers.get("Last-Modified", ""))
            if not validator.stat().st_size:
                validator.unlink()
            progress.start(f"{name} (MiB)", total=(total or done) // _MEBIBYTE, done=done // _MEBIBYTE)
            _append(response, handle, progress=progress)
    except urllib.error.HTTPError as error:
        error.close()
        _judge(error, handle, done=done)
        return
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        raise _DroppedError(f"{getattr(error, 'reason', None) or error or type(error).__name__}") from None
    if total is not None and handle.tell() != total:
        raise _DroppedError(f"the connection ended at {handle.tell()} of {total} bytes")


def _append(response: http.client.HTTPResponse, handle: IO[bytes], *, progress: Progress) -> None:
    # What has come, not a whole block: a connection that is reset, or a kill, takes no more than that along.
    while block := response.read1(_BLOCK):
        before = handle.tell() // _MEBIBYTE
        handle.write(block)
        handle.flush()
        progress.advance(handle.tell() // _MEBIBYTE - before)


def _judge(error: urllib.error.HTTPError, handle: IO[bytes], *, done: int) -> None:
    """Return where the answer says that nothing is missing; else raise what it calls for."""
    if error.code == _RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range", "") == f"bytes */{done}":
            return
        _restart(handle)
        raise _DroppedError("the file has changed at its source")
    if error.code >= _SERVER_ERRORS or error.code == _TOO_MANY_REQUESTS:
        raise _DroppedError(f"HTTP {error.code} {error.reason}")
    raise _MirrorError(f"HTTP {error.code} {error.reason}")


def _restart(handle: IO[bytes]) -> int:
    handle.truncate(0)
    handle.seek(0)
    return 0


def _total(headers: http.client.HTTPMessage, *, done: int) -> int | None:
    """The bytes of the whole file, as far as the answer says; raises _MirrorError where it gives another part than was asked."""
    span = headers.get("Content-Range")
    if done and span is not None:
        start, _, total = span.removeprefix("bytes ").replace("-", "/", 1).partition("/")
        if start != str(done):
            raise _MirrorError(f"sends bytes from {start} where {done} was asked for")
        total = total.rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    length = headers.get("Content-Length", "")
    return done + int(length) if length.isdecimal() else None


def _check_space(handle: IO[bytes], missing: int) -> None:
    folder = Path(handle.name).parent
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise WeightsError(
            f"{folder}: {missing / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free; make room, or set VJEPA2_HOME elsewhere"
        )


def _accepted(model: registry.ReleasedModel, partial: Path) -> str:
    """The digest of a download that is the pinned file, or, where none is pinned, a whole one; else it is removed."""
    try:
        digest = digest_file(partial)
        pinned = _pinned(model)
        if pinned is None:
            _check_whole(partial)
        elif digest != pinned:
            raise _MirrorError(f"gave another file (sha256 {digest[:12]}) than was pinned ({pinned[:12]})")
    except _MirrorError:
        partial.unlink()
        Path(f"{partial}.validator").unlink(missing_ok=True)
        raise
    return digest


def _check_whole(path: Path) -> None:
    """Hold the checksums in a `.pt` file, which is a zip archive, against what came; raises _MirrorError."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _MirrorError(f"gave no whole checkpoint ({error})") from None
    if damaged is not None:
        raise _MirrorError(f"gave a damaged checkpoint (the checksum of {damaged} is wrong)")


def _checked(model: registry.ReleasedModel, path: Path) -> str:
    """The digest of the file that lies here, pinned now if it never was; raises WeightsError where it is not the pinned one."""
    digest, pinned = digest_file(path), _pinned(model)
    if pinned is None:
        try:
            _check_whole(path)
        except _MirrorError as error:
            reason = str(error).removeprefix("gave ")
            raise WeightsError(f"{path}: is {reason}; remove it and run `vjepa2 weights pull {model.name}`") from None
        _pin(model, path, digest, "")
    elif digest != pinned:
        raise WeightsError(
            f"{path}: has sha256 {digest[:12]}, not {pinned[:12]} as when it was first seen; remove it and run `vjepa2 weights "
            f"pull {model.name}`, or, if the new one is right, remove {pin_path(model)}"
        )
    return digest


def _pinned(model: registry.ReleasedModel) -> str | None:
    path = pin_path(model)
    return str(read_json(path)["sha256"]) if path.is_file() else None


def _pin(model: registry.ReleasedModel, path: Path, digest: str, url: str) -> None:
    if _pinned(model) is None:
        write_json(pin_path(model), {"sha256": digest, "bytes": path.stat().st_size, "url": url})
