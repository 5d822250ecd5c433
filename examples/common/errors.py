"""Error messages for users."""

from __future__ import annotations


def error_text(error: BaseException) -> str:
    """Return the message of an error, without the number that Python puts before the message of an OSError."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
