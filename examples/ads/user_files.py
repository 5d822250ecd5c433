"""Helpers of `reader`: contents, image paths, label names and quotations for messages."""

from __future__ import annotations

import ntpath
import posixpath
import reprlib
import unicodedata
from pathlib import Path, PureWindowsPath

__all__ = ["AnnotationError", "image_path", "label_name", "quote", "read_file", "shorten"]

_QUOTED = 120
_quotation = reprlib.Repr()
_quotation.maxstring = _quotation.maxother = _quotation.maxlong = _QUOTED
_quotation.maxlevel = 3


class AnnotationError(ValueError):
    """Raised if a file of annotations or labels does not have the expected format."""


def read_file(path: Path, what: str) -> bytes:
    """Read a regular file, or a link to one.

    Args:
        path: The file.
        what: The kind of file, for messages.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        AnnotationError: If it is not a regular file; reading a pipe could block.
        OSError: If it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {what} at {path}. Check the path.")
    if not path.is_file():
        raise AnnotationError(f"The {what} {path} must be a regular file, not a folder, a pipe or a device.")
    try:
        return path.read_bytes()
    except OSError as error:  # the error of `read` does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def image_path(text: str, place: str) -> str:
    """Normalise the path of an image, so that different spellings of a path name the same image.

    Links are not followed, so a link in the image folder may point outside it.

    Args:
        text: A path relative to the image folder; bytes that are not UTF-8 are surrogate escapes.
        place: The position in the file, for messages.

    Returns:
        The path without `.`, `..` and empty parts.

    Raises:
        AnnotationError: If it is empty or absolute, points outside the folder, or is not a valid file name.
    """
    shortest = posixpath.normpath(text)
    # Also by the rules of Windows, so that the result does not depend on the system.
    first_parts = (shortest.split("/")[0], ntpath.normpath(text).split("\\")[0])
    inside = not PureWindowsPath(text).anchor and ".." not in first_parts
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = b"\0"
    fits = len(encoded) <= 1024 and max(map(len, encoded.split(b"/"))) <= 255 and b"\0" not in encoded
    if not (text.strip() and shortest != "." and inside and fits):
        raise AnnotationError(
            f"{place} is not a path in the image folder. The path of an image must be relative to that folder, like "
            "'0/49380.jpg', must not leave it through '..', and must have at most 1,024 bytes, 255 in each part, "
            "without NUL."
        )
    return shortest


def label_name(text: str, place: str) -> str:
    """Check the name of a label and strip the spaces around it.

    Args:
        text: The name in the file.
        place: The position in the file, for messages.

    Returns:
        The name.

    Raises:
        AnnotationError: If it is empty, or contains a line break or another control character.
    """
    name = text.strip()
    if not name or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise AnnotationError(
            f"{place} must be the name of a label, without line breaks and control characters, got {quote(text)}."
        )
    return name


def quote(value: object) -> str:
    """Return the repr of a value, shortened for a message."""
    return shorten(_quotation.repr(value))


def shorten(text: str) -> str:
    """Shorten a text for a message."""
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
