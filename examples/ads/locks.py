"""A lock that goes with the process that holds it, however it ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_held: set[int] = set()


def _close_in_child() -> None:
    """Leave the locks to the parent: a process that it forked, to read images say, may outlive it for seconds."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for the length of a block; its file is removed afterwards.

    Where the system or the file system has no such locks, a warning says so and the block runs without one.

    Args:
        path: The file of the lock; made if it is missing. Its folder must exist.

    Raises:
        BlockingIOError: If another process, or another block of this one, holds the lock.
    """
    handle = _acquired(path)
    if handle is None:
        logging.warning("There are no file locks here: do not start a second run on %s.", path.parent)
        yield
        return
    _held.add(handle)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _held.discard(handle)
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Say whether a process holds this lock."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(handle)
    except OSError:
        return False
    finally:
        os.close(handle)


def _acquired(path: Path) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle):
                raise BlockingIOError(f"{path} is locked by another process.")
            if _is_at(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            os.close(handle)
            return None
        os.close(handle)  # its holder removed the file after it was opened here: a lock on it excludes nobody


def _lock(handle: int) -> bool:
    """Lock an open file, or return False where another process has locked it."""
    if fcntl is None:
        raise OSError("no file locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
