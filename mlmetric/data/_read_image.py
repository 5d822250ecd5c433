"""Reading one image file: its pixels, or an error that says whether the file or the machine is at fault."""

from __future__ import annotations

import errno
import logging
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

_log = logging.getLogger(__name__)
MAX_PIXELS = 100_000_000
_RESIZED_SIDE = 256
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class BadImageError(ValueError):
    """One image that cannot be read; the message names the file and the reason."""


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB.

    Palettes, grey, CMYK and 16-bit images are converted; transparency is dropped; photographs are turned upright as
    their camera noted, and left as they are where that note is broken. The size is looked at before a pixel is decoded.

    The formats are AVIF, BMP, GIF, JPEG (and MPO), JPEG 2000, PNG, PPM (PBM, PGM, PFM), TIFF and WebP, whatever the
    file's name ends in; of several frames the first is read. Pillow's other formats are refused: for some of them,
    such as EPS, it starts another program.

    Args:
        path: The file. Symbolic links are followed; what they lead to must be a regular file.
        max_pixels: Refuse images with more pixels than this. 100 million (10,000 x 10,000) take 400 MB, since Pillow
            keeps 4 bytes a pixel. The peak is 400 MB for an RGB image as JPEG or PNG, 800 MB where it is turned or
            converted, 700 MB for a progressive JPEG or 16 bits, 0.9 GB for AVIF, 1.3 GB for 32 bits, 1.6 GB for WebP,
            1.9 GB for JPEG 2000. Pillow itself warns above 89 million pixels and refuses 179 million.

    Returns:
        The decoded image.

    Raises:
        BadImageError: If the file is missing, no regular file, no image, truncated, too large, or so thin that it
            would have more than 100 million pixels once its shorter side is resized to 256, as the preprocessing of
            networks does.
        OSError: If the machine failed and not the image: too many open files, an unreadable disk, too little memory
            for an image of an allowed size. The message names the file.
    """
    try:
        with _open_regular(path) as file, Image.open(file, formats=_known_formats()) as image:
            _check_size(path, *image.size, max_pixels)
            image.load()
            _turn_upright(image, path)
            image.info.pop("transparency", None)
            shallow = _eight_bits(image, path)
            return shallow if shallow.mode == "RGB" else shallow.convert("RGB")
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"{path} is too large: {error}") from error
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"{path} could not be read: there was too little memory for it.") from error
    except Exception as error:
        # A decoder that is led outside of a torn file seeks to impossible places, which is EINVAL; its own OSErrors
        # have no number.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            reason = f"{path} could not be read: {error.strerror}. The machine is at fault, not the image."
            raise OSError(error.errno, reason) from error
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on torn files.
        raise BadImageError(f"{path} is truncated or no image ({type(error).__name__}: {error}).") from error


def is_absent(error: OSError | ValueError) -> bool:
    """Judge whether an error of the file system says that there is no such file, rather than that the machine failed.

    A ValueError comes from a name that no file can have, such as one with a null byte.
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
        if is_absent(error):
            raise BadImageError(f"{path} does not exist.") from error
        raise


def _known_formats() -> list[str]:
    """Return those of the formats that this version of Pillow knows."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_size(path: str | Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadImageError(f"{path} is too large: {width} x {height} pixels, at most {max_pixels} are read.")
    shorter, longer = sorted((width, height))
    if _RESIZED_SIDE * _RESIZED_SIDE * longer > MAX_PIXELS * shorter:
        raise BadImageError(
            f"{path} is too thin: {width} x {height} pixels would be more than {MAX_PIXELS} once the shorter side is "
            f"resized to {_RESIZED_SIDE}."
        )


def _turn_upright(image: Image.Image, path: str | Path) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception as error:  # Pillow meets broken metadata with many errors; the pixels are there
        _log.debug("The EXIF of %s is broken: %s", path, error)


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Scale deeper greys to 8 bits, which a plain conversion would clip."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadImageError(f"{path} holds numbers beyond 16 bits (mode {image.mode}): save it with 8 or 16 bits.")
    if image.mode == "I" and values.max() <= 255:
        return image
    return Image.fromarray((values // 257).astype(np.uint8))
