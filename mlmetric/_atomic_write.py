"""Writing a file whole or not at all."""

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
    """Open a temporary file beside `path` and, when the block ends, sync it and rename it to `path`.

    Whoever reads `path` sees the former content or the new one, never a part of it, after a crash too. If anything is
    raised the temporary file is removed and `path` stays as it was. Processes that write the same path at the same
    time use different temporary files.

    Args:
        path: The file; its folder is made if it is missing.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names `path`, `errno` is kept.
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
            kept = " Its former content is kept." if path.exists() else ""
            raise OSError(
                error.errno or errno.EIO, f"{path} could not be written: {error.strerror or error}.{kept}"
            ) from error
        raise
