"""Locks of files, which the system releases when their process ends."""

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

_open_locks: set[int] = set()


def _close_locks() -> None:
    """Close the locks in a forked process, such as one that reads images: it may run longer than its parent."""
    while _open_locks:
        os.close(_open_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a file until the block or the process ends; the file is removed afterwards.

    Where the system or the file system does not support locks, a warning is logged and the block runs without one.

    Args:
        path: The lock file; created if it is missing. Its folder must exist.

    Yields:
        Whether the file is locked: False where locks are not supported.

    Raises:
        BlockingIOError: If another process, or another block of this process, has locked the file.
    """
    handle = _acquire(path)
    if handle is None:
        logging.warning("File locks are not supported here: do not start a second run in %s.", path.parent)
        yield False
        return
    _open_locks.add(handle)
    try:
        yield True
    finally:
        with suppress(OSError):
            path.unlink()
        _open_locks.discard(handle)
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether a process has locked this file."""
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


def _acquire(path: Path) -> int | None:
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
        os.close(handle)  # the previous owner removed the file after it was opened here: locking it has no effect


def _lock(handle: int) -> bool:
    """Lock an open file; return False if another process has locked it."""
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
