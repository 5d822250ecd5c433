"""Shared by the readers of label files: their error, image paths, label names and quotations for messages."""

from __future__ import annotations

import ntpath
import os
import posixpath
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_QUOTED = 120
_quotation = reprlib.Repr()
_quotation.maxstring = _quotation.maxother = _quotation.maxlong = _QUOTED
_quotation.maxlevel = 3


class LabelFileError(ValueError):
    """Raised if a file or folder of labels is not in a format that can be read.

    The message names the file, and the line or id in it, and states what was expected and what was found.
    """


def read_file(path: Path, what: str) -> bytes:
    """Read a regular file, or a link to one.

    Args:
        path: The file.
        what: The kind of file, for messages.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        LabelFileError: If it is not a regular file; reading a pipe could block.
        OSError: If it cannot be read; the message names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {what} at {path}. Check the path.")
    if not path.is_file():
        raise LabelFileError(f"The {what} {path} must be a regular file, not a folder, a pipe or a device.")
    try:
        return path.read_bytes()
    except OSError as error:  # the error of `read` does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


class ImagePaths:
    """Normalise paths of images, so that different spellings of a path name the same image.

    Links are not followed, so a link in the folder may point outside it.

    Args:
        root: The folder that paths are relative to.
        suffix: A file name extension to append to paths that do not end with it; None to append nothing.
    """

    def __init__(self, root: Path, suffix: str | None = None) -> None:
        self.root = root
        self._suffix = "" if suffix is None else suffix
        self._absolute = [str(Path(os.path.abspath(root))), os.path.realpath(root)]  # noqa: PTH100

    def normalise(self, text: str, place: str) -> str:
        """Return a path relative to the folder, without `.`, `..` and empty parts.

        Args:
            text: A path relative to the folder, or an absolute path in it. Bytes that are not UTF-8 are surrogate
                escapes.
            place: The position in the file, for messages.

        Raises:
            LabelFileError: If the path is empty, leads outside the folder or is not a valid file name.
        """
        if ntpath.splitdrive(text)[0] or text[:1] in ("/", "\\"):
            relative = self._inside(text)
        else:
            relative = posixpath.normpath(text)
            # Also by the rules of Windows, so that the result does not depend on the system.
            if ".." in (relative.split("/", 1)[0], ntpath.normpath(text).split("\\", 1)[0]):
                relative = None
        if relative is None:
            raise LabelFileError(
                f"{place} is not a path in {self.root}. Paths must be relative to that folder, like '0/49380.jpg', and "
                "must not leave it, or must be absolute paths in it. Pass `images` if the images are in another folder."
            )
        is_file = bool(text.strip()) and relative != "." and "\0" not in text
        if self._suffix and not relative.lower().endswith(self._suffix.lower()):
            relative += self._suffix
        if not (is_file and _is_file_name(relative)):
            raise LabelFileError(
                f"{place} is not the path of a file: it must have at most 1,024 bytes, 255 in each part, without NUL, "
                "and must not be empty."
            )
        return relative

    def _inside(self, text: str) -> str | None:
        """Return an absolute path relative to the folder; None if it is not in the folder."""
        normal = os.path.normpath(text)
        for root in self._absolute:
            start = root if root.endswith(os.sep) else root + os.sep
            if normal.startswith(start):
                return normal[len(start) :].replace(os.sep, "/")
        return None


def _is_file_name(text: str) -> bool:
    if len(text) <= 255 and text.isascii():
        return True
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(encoded) <= 1024 and max(map(len, encoded.split(b"/"))) <= 255


def label_name(text: str, place: str) -> str:
    """Check the name of a label and strip the spaces around it.

    Args:
        text: The name in the file.
        place: The position in the file, for messages.

    Returns:
        The name.

    Raises:
        LabelFileError: If it is empty, or contains a line break or another control character.
    """
    name = text.strip()
    if not name or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise LabelFileError(
            f"{place} must be the name of a label, without line breaks and control characters, got {quote(text)}."
        )
    return name


def quote(value: object) -> str:
    """Return the repr of a value, shortened for a message."""
    return shorten(_quotation.repr(value))


def shorten(text: str) -> str:
    """Shorten a text for a message."""
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."


def listing(parts: Iterable[object], most: int = 8) -> str:
    """Join texts by commas; of more than `most`, the first ones and the number of the others."""
    texts = [shorten(str(part)) for part in parts]
    rest = len(texts) - most
    return ", ".join(texts) if rest <= 0 else f"{', '.join(texts[:most])} and {rest:,} more"


def number_of(count: int, what: str, plural: str | None = None) -> str:
    """Write a number with its unit: `1 image`, `2,000 images`."""
    return f"{count:,} {what if count == 1 else plural or what + 's'}"
