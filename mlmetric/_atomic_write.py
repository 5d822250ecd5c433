"""Atomic replacement of a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`; at the end of the block, sync it and rename it to `path`.

    A reader of `path` sees the previous content or the new content, never a part of it, even after a crash. If the
    block raises an error, the temporary file is removed and `path` is unchanged. Processes that write the same path at
    the same time use different temporary files.

    Args:
        path: The file; its folder is created if it does not exist.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full. The message names `path`, and
            `errno` is taken from the original error.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            kept = " Its previous content is kept." if path.exists() else ""
            raise OSError(
                error.errno or errno.EIO, f"{path} could not be written: {error.strerror or error}.{kept}"
            ) from error
        raise
