"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

UNFINISHED = ".unfinished"


@contextmanager
def open_whole(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and, when the block ends, sync it and rename it to `path`.

    Text is UTF-8 whatever the locale, and what is not Unicode in the name of a file is written as the bytes that the
    system has. Processes that write one path at a time do not meet in one temporary file.

    Args:
        path: The file; its folder is made if it is missing.
        mode: `"w"` for text, `"wb"` for bytes.

    Yields:
        The temporary file.

    Raises:
        OSError: If the file cannot be written, as on a full disk; the message names `path`, and no temporary file
            stays behind.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    temporary = path.with_name(f"{path.name}.{uuid4().hex}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{path} could not be written: {error.strerror or error}.") from error
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file such that it is there whole or not at all."""
    with open_whole(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
