"""Reading of one image file, with errors that state whether the file or the system is the cause."""

from __future__ import annotations

import errno
import logging
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)
MAX_PIXELS = 100_000_000
_RESIZED_SIDE = 256
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_ignoring = threading.Lock()  # warning filters apply to all threads
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class BadImageError(ValueError):
    """Raised for an image that cannot be read; the message names the file and the reason."""


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB.

    Palettes, grey, CMYK and 16-bit images are converted; transparency is dropped; photographs are rotated according to
    their EXIF orientation, or not at all if the EXIF data are damaged. Pillow warns about some damaged metadata; the
    image is read even if warnings are turned into errors. The size is checked before pixels are decoded.

    The formats are AVIF, BMP, GIF, JPEG (and MPO), JPEG 2000, PNG, PPM (PBM, PGM, PFM), TIFF and WebP, recognised by
    content, not by the file name; if there are several frames, the first is read. Pillow's other formats are not
    supported: for some of them, such as EPS, it starts another program.

    Args:
        path: The file: a regular file or a symbolic link to one.
        max_pixels: The largest number of pixels of an image that is read. The default of 100 million (10,000 x 10,000)
            takes 400 MB, since Pillow uses 4 bytes per pixel. The peak is 400 MB for an RGB image as JPEG or PNG, 800
            MB if it is rotated or converted, 700 MB for a progressive JPEG or 16 bits, 0.9 GB for AVIF, 1.3 GB for 32
            bits, 1.6 GB for WebP, 1.9 GB for JPEG 2000. Pillow itself warns above 89 million pixels and raises above
            179 million.

    Returns:
        The decoded image.

    Raises:
        BadImageError: If the file does not exist, is not a regular file, is not an image, is truncated, has too many
            pixels, or is so thin that it would have more than 100 million pixels after its shorter side is resized to
            256, as in the usual preprocessing.
        OSError: If the system is the cause, not the image: too many open files, an unreadable disk, not enough memory
            for an image within `max_pixels`. The message names the file.
    """
    return _despite_warnings(lambda: _read(path, max_pixels))


def _despite_warnings(read: Callable[[], Image.Image]) -> Image.Image:
    """Read an image even if the user's filters turn Pillow's warnings about damaged metadata into errors."""
    try:
        return read()
    except UserWarning:
        with _ignoring, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return read()


def _read(path: str | Path, max_pixels: int) -> Image.Image:
    from PIL import Image

    try:
        with _open_regular(path) as file, Image.open(file, formats=_supported_formats()) as image:
            _check_size(path, *image.size, max_pixels)
            image.load()
            return _to_rgb(_upright(image, path, in_place=True), path)
    except (BadImageError, UserWarning):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"{path} is too large: {error}") from error
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"{path} could not be read: there was not enough memory.") from error
    except Exception as error:
        # On a damaged file a decoder may seek to a negative position, which is EINVAL; its own OSErrors have no errno.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            reason = f"{path} could not be read: {error.strerror}. The system is the cause, not the image."
            raise OSError(error.errno, reason) from error
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files.
        raise BadImageError(f"{path} is truncated or not an image ({type(error).__name__}: {error}).") from error


def convert_image(image: Image.Image, name: str) -> Image.Image:
    """Convert an open image as `read_image` does, without changing it.

    Args:
        image: The image.
        name: The name of the image in error messages.

    Returns:
        The image, in RGB.

    Raises:
        BadImageError: If its pixels cannot be decoded, or it is too large or too thin.
    """
    _check_size(name, *image.size, MAX_PIXELS)
    return _despite_warnings(lambda: _convert(image, name))


def _convert(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        return _to_rgb(_upright(image, name, in_place=False), name)
    except (BadImageError, MemoryError, UserWarning):
        raise
    except Exception as error:
        raise BadImageError(f"{name} is truncated or not an image ({type(error).__name__}: {error}).") from error


def means_absent(error: OSError | ValueError) -> bool:
    """Return whether an error of the file system means that the file does not exist.

    A ValueError is raised for a name that no file can have, such as one with a null byte.
    """
    return not isinstance(error, OSError) or error.errno in _ABSENT


def _open_regular(path: str | Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise BadImageError(f"{path} is not a regular file.")  # opening a FIFO would wait for a writer
        return Path(path).open("rb")
    except BadImageError:
        raise
    except (OSError, ValueError) as error:
        if means_absent(error):
            raise BadImageError(f"{path} does not exist.") from error
        raise


def _supported_formats() -> list[str]:
    """Return the supported formats that this version of Pillow can read."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_size(path: str | Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImageError(f"{path} is too large: it has {width} x {height} pixels, at most {max_pixels} are read.")
    shorter, longer = sorted((width, height))
    if _RESIZED_SIDE * _RESIZED_SIDE * longer > MAX_PIXELS * shorter:
        raise BadImageError(
            f"{path} is too thin: its {width} x {height} pixels would be more than {MAX_PIXELS} after the shorter "
            f"side is resized to {_RESIZED_SIDE}."
        )


def _upright(image: Image.Image, path: str | Path, *, in_place: bool) -> Image.Image:
    """Rotate an image according to its EXIF orientation, in place or as a copy."""
    from PIL import ImageOps

    try:
        rotated = ImageOps.exif_transpose(image, in_place=in_place)  # type: ignore[call-overload]
        return image if rotated is None else rotated
    except (MemoryError, UserWarning):
        raise
    except Exception as error:  # Pillow raises many kinds of errors for damaged EXIF data; the pixels can still be read
        _log.debug("The EXIF data of %s are damaged: %s", path, error)
        return image if in_place else image.copy()


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    image.info.pop("transparency", None)
    converted = _to_eight_bits(image, path)
    return converted if converted.mode == "RGB" else converted.convert("RGB")


def _to_eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Scale grey values of more than 8 bits to 8 bits; a plain conversion would clip them."""
    if not image.mode.startswith(("I", "F")):
        return image
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadImageError(f"{path} contains values beyond 16 bits (mode {image.mode}): save it with 8 or 16 bits.")
    if image.mode == "I" and values.max() <= 255:
        return image
    return Image.fromarray((values // 257).astype(np.uint8))
