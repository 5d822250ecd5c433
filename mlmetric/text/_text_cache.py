"""The cache of the texts read from images: a small file for each image."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from pathlib import Path

from mlmetric._atomic_write import atomic_write
from mlmetric._digest import sha256_hex

_log = logging.getLogger(__name__)
_BYTES_PER_READ = 2**20


class TextCache:
    """The texts that one reader has read.

    The file of a text is named after the digest of the content of the image, in a folder named after its first two
    digits. It contains the digest of this name and the text, a line break, and the text in UTF-8, so that a truncated,
    changed or renamed file is detected and not used. Files are written atomically; runs that share a cache need no
    lock.

    Args:
        folder: The folder of this reader.

    Raises:
        OSError: If the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"The cache folder {folder} could not be created: {reason}. Choose another."
            ) from error

    def get(self, key: str) -> str | None:
        """Return the text of the image with this digest; None if there is none, or its file is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, _, text = content.partition(b"\n")
        if digest != _digest(key, text):
            _log.warning("%s is damaged or changed; it is replaced.", path)
            return None
        return text.decode(errors="surrogatepass")

    def put(self, key: str, text: str) -> None:
        """Write the text of the image with this digest.

        Raises:
            OSError: If it cannot be written.
        """
        encoded = text.encode(errors="surrogatepass")
        with atomic_write(self._path(key)) as file:
            file.write(_digest(key, encoded) + b"\n" + encoded)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.txt"


def _digest(key: str, text: bytes) -> bytes:
    return sha256_hex([f"{key}\n", text]).encode()


def content_digest(path: Path) -> str | None:
    """Return the digest of the content of a file; None if it is not a regular file that can be opened."""
    with suppress(OSError, ValueError):  # `read_image` states the reason
        if path.is_file():
            with path.open("rb") as file:
                return sha256_hex(iter(partial(file.read, _BYTES_PER_READ), b""))
    return None
