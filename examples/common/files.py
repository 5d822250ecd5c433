"""Files that are written atomically."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

UNFINISHED = ".unfinished"
"""Suffix of temporary files."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically, through a temporary file in the same folder: readers never see a part of it.

    Text is UTF-8 whatever the locale; in a file name, bytes that are not UTF-8 (surrogate escapes) are written as they
    are.

    Args:
        path: The file; its folder is created if it is missing.
        content: Text or bytes.

    Raises:
        OSError: If the file cannot be written, for example on a full disk. The message names `path`; the previous file
            is kept and the temporary one removed.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.{uuid4().hex}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
