"""One file over HTTP into a partial file: gone on with where it stopped, and never by two processes at once.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeVar

from vjepa2cli.errors import WeightsError
from vjepa2cli.progress import Progress

_LOG = logging.getLogger(__name__)

HEADERS = {"User-Agent": "vjepa2cli"}
TIMEOUT = 30.0
"""Seconds without an answer or a byte, after which a connection counts as dropped."""

_BLOCK = 1 << 18
_MEBIBYTE = 1 << 20
_TRIES = 5
"""Tries at one mirror without a new byte; a try that brought some starts the count anew."""
_LONGEST_PAUSE = 30.0
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 206, 416, 429
_SERVER_ERRORS = 500


DROPS = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError)
"""How a connection that fails is told by the client."""

_Result = TypeVar("_Result")


class MirrorError(Exception):
    """One mirror cannot give the file; the next one may."""


class DroppedError(Exception):
    """A connection ended early; another may go on where it stopped."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold what is written at `path`; whoever comes meanwhile waits in line."""
    lock = path.with_name(f"{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            handle = stack.enter_context(lock.open("ab"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _LOG.warning("%s: another process downloads it; waiting for that one", path)
                fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever held it has removed it at the end: a lock on what has no name any more keeps nobody out.
            if lock.exists() and lock.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                break
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def insisted(attempt: Callable[[], _Result], *, progressed: Callable[[], bool], where: str, pause: float) -> _Result:
    """What `attempt` gives, tried again where a connection drops; raises MirrorError after too many tries that moved nothing."""
    tries, fault = 0, ""
    while tries < _TRIES:
        if tries:
            time.sleep(min(pause * 2 ** (tries - 1), _LONGEST_PAUSE))
        try:
            return attempt()
        except DroppedError as error:
            fault = str(error)
            _LOG.warning("%s: %s; trying again", where, fault)
        tries = 1 if progressed() else tries + 1
    raise MirrorError(f"{fault}, {_TRIES} times in a row")


def download(url: str, partial: Path, *, name: str, progress: Progress, pause: float) -> None:
    """Append to `partial` until the file is whole; raises MirrorError where this mirror cannot give it."""
    with partial.open("ab") as handle:
        furthest = [handle.tell()]

        def progressed() -> bool:
            before, furthest[0] = furthest[0], max(furthest[0], handle.tell())
            return furthest[0] > before

        try:
            insisted(lambda: _continue(url, handle, name=name, progress=progress), progressed=progressed, where=url, pause=pause)
        finally:
            progress.finish()
        os.fsync(handle.fileno())


def _continue(url: str, handle: IO[bytes], *, name: str, progress: Progress) -> None:
    """One connection: ask for what is missing, and append what comes; raises DroppedError where it ends early."""
    validator = Path(f"{handle.name}.validator")
    done = handle.tell()
    headers = dict(HEADERS)
    if done and validator.is_file():
        headers |= {"Range": f"bytes={done}-", "If-Range": validator.read_text(encoding="utf-8")}
    else:
        done = _restart(handle)
    try:
        # An opener of its own: `urlopen` keeps the proxies that the process began with.
        opener = urllib.request.build_opener()
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise MirrorError(f"leads to {response.url}, which is not encrypted")
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
    except DROPS as error:
        raise DroppedError(f"{getattr(error, 'reason', None) or error or type(error).__name__}") from None
    if total is not None and handle.tell() != total:
        raise DroppedError(f"the connection ended at {handle.tell()} of {total} bytes")


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
        raise DroppedError("the file has changed at its source")
    if error.code >= _SERVER_ERRORS or error.code == _TOO_MANY_REQUESTS:
        raise DroppedError(f"HTTP {error.code} {error.reason}")
    raise MirrorError(f"HTTP {error.code} {error.reason}")


def _restart(handle: IO[bytes]) -> int:
    handle.truncate(0)
    handle.seek(0)
    return 0


def _total(headers: http.client.HTTPMessage, *, done: int) -> int | None:
    """The bytes of the whole file, as far as the answer says; raises MirrorError where it gives another part than was asked."""
    span = headers.get("Content-Range")
    if done and span is not None:
        start, _, total = span.removeprefix("bytes ").replace("-", "/", 1).partition("/")
        if start != str(done):
            raise MirrorError(f"sends bytes from {start} where {done} was asked for")
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
