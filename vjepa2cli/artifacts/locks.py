"""Locks on files and folders, so that processes on one or several machines can share a store; they end with their holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a moment's work; where the file system has no locks, nobody is kept out."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(path: Path) -> int | None:
    """Hold a file or folder until its descriptor is closed or the process dies; None where another process holds it.

    Raises FileNotFoundError where it is not there, or is removed before it is held.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # A file system without locks: nobody can be kept out, and two that write the same agree in the end.
        return descriptor
    try:
        # Whoever removed it may have done so between the two calls above; what another one put there is theirs.
        is_still_there = os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        os.close(descriptor)
        raise
    if is_still_there:
        return descriptor
    os.close(descriptor)
    return None


def has_locks(descriptor: int) -> bool:
    """Whether the file system of a held folder knows locks at all."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
