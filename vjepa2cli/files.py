"""Files that are whole or absent: atomic writes, content digests, and a sane error when a disk is full."""

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vjepa2cli.errors import ArtifactError

_BLOCK = 1 << 20


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write; rename it over `path` on success, remove it on failure.

    The sibling is named `<name>.<pid>.partial`; a whole folder may be written as well (an older folder at `path` is replaced).
    What a killed process left under such a name is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        if not _is_alive(leftover.name.split(".")[-2]):
            _remove(leftover)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_file():
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True  # no name of ours
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replaced_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write `tree` as indented JSON with sorted keys, whole or not at all; NaN and infinities are refused."""
    write_text(path, json.dumps(tree, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises ArtifactError where the file is absent or is no JSON object."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; run the step that writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}); delete it and run the step that writes it again") from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path}: holds a {type(tree).__name__}, not a JSON object")
    return tree


def digest_bytes(*parts: bytes) -> str:
    """SHA-256 of the parts in order, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def digest_json(tree: Any) -> str:
    """SHA-256 of a JSON tree, independent of key order."""
    return digest_bytes(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


def digest_file(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's content, read in blocks; `beat` is called after each."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
            beat()
    return digest.hexdigest()


def is_disk_full(error: OSError) -> bool:
    """Whether `error` says that a disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
