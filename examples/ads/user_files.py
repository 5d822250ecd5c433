"""What the readers of a user's files have in common: file contents, image paths, label names and short quotations."""

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
    """A file of annotations or labels that does not have the expected form."""


def read_file(path: Path, what: str) -> bytes:
    """Return the content of a regular file, or of a link to one.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        AnnotationError: If it is not a regular file: a pipe could block for ever.
        OSError: If it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {what} at {path}. Check the path.")
    if not path.is_file():
        raise AnnotationError(f"The {what} {path} must be a regular file, not a folder, a pipe or a device.")
    try:
        return path.read_bytes()
    except OSError as error:  # of those that `read` raises none names the file
        raise OSError(error.errno, error.strerror, str(path)) from error


def image_path(text: str, place: str, folder: str = "the image folder") -> str:
    """Return the shortest spelling of the path of an image, so that all spellings of a path are one image.

    The path is judged and shortened as a text: links are not followed, so that a link inside the image folder may lead
    out of it.

    Args:
        text: A path relative to the image folder; bytes that are not UTF-8 are surrogate escapes.
        place: Where it stands, for messages.
        folder: The image folder, for messages.

    Returns:
        The path without `.`, `..` and empty parts.

    Raises:
        AnnotationError: If it is empty or absolute, leads out of the folder, or cannot be the name of a file.
    """
    shortest = posixpath.normpath(text)
    # As Windows reads it too, so that a path is refused everywhere or nowhere.
    first_parts = (shortest.split("/")[0], ntpath.normpath(text).split("\\")[0])
    inside = not PureWindowsPath(text).anchor and ".." not in first_parts
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = b"\0"
    fits = len(encoded) <= 1024 and max(map(len, encoded.split(b"/"))) <= 255 and b"\0" not in encoded
    if not (text.strip() and shortest != "." and inside and fits):
        raise AnnotationError(
            f"{place} is no path in {folder}. The path of an image is relative to that folder, like '0/49380.jpg', "
            "without a '..' that leads out; it has at most 1,024 bytes, 255 in each part, and none of them is NUL."
        )
    return shortest


def label_name(text: str, place: str) -> str:
    """Return the name of a label without the spaces around it.

    Args:
        text: The name as it is in the file.
        place: Where it stands, for messages.

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
    """Return the repr of a value from a file, cut to what fits in a message."""
    return shorten(_quotation.repr(value))


def shorten(text: str) -> str:
    """Cut a text to what fits in a message."""
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
