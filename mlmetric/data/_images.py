"""Image files: reading one robustly, and many as a data set."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

_MAX_PIXELS = 100_000_000


class BadImageError(ValueError):
    """One image that cannot be read; the message names the file and the reason."""


class BadImagesError(ValueError):
    """Several images that cannot be read.

    Attributes:
        reasons: For each bad image the message that names the file and the reason.
    """

    def __init__(self, reasons: Sequence[str], num_images: int) -> None:
        self.reasons = list(reasons)
        super().__init__(
            f"{len(self.reasons)} of {num_images} images cannot be read; the first: {self.reasons[0]} Mend or remove "
            "them, or skip them (`on_bad_image='skip'`, `--on-bad-image skip` in the examples). The features of all "
            "others are computed and kept."
        )


def read_image(path: str | Path, *, max_pixels: int = _MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB.

    Palettes, grey, CMYK and 16-bit images are converted; transparency is dropped; photographs are turned upright as
    their camera noted. The size is looked at before a pixel is decoded.

    Args:
        path: The file, of any format that Pillow reads.
        max_pixels: Refuse images with more pixels than this; 100 million (10,000 x 10,000) decode to 300 MB.
            Pillow's own limit, about 179 million, stands above it.

    Returns:
        The decoded image.

    Raises:
        BadImageError: If the file is missing, no image, truncated, or too large.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            width, height = image.size
            if width * height > max_pixels:
                raise BadImageError(f"{path} is too large: {width} x {height} pixels, at most {max_pixels} are read.")
            upright = ImageOps.exif_transpose(image)
            return _eight_bits(upright, path).convert("RGB")
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError(f"{path} does not exist.") from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f"{path} is too large: {error}") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on torn files.
        raise BadImageError(f"{path} is truncated or no image ({type(error).__name__}: {error}).") from error


def _describe(transform: Callable[[Image.Image], Any] | None) -> str:
    if inspect.isfunction(transform) and "<" not in transform.__qualname__:
        return f"{transform.__module__}.{transform.__qualname__}"
    return repr(transform)


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Scale deeper greys to 8 bits, which a plain conversion would clip."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadImageError(f"{path} holds numbers beyond 16 bits (mode {image.mode}): save it with 8 or 16 bits.")
    if image.mode == "I" and values.max() <= 255:
        return image
    return Image.fromarray((values.astype(np.uint32) // 257).astype(np.uint8))


class ImageDataset(Dataset[tuple[Any, Tensor]]):
    """Images and their labels, from records.

    Args:
        root: The folder that `paths` are relative to.
        paths: N paths.
        labels: Shape `(N, L)`; by default none, `(N, 0)`.
        transform: Applied to each image (a `PIL.Image.Image` in RGB); by default none.
        max_pixels: Images with more pixels than this are refused.

    Raises:
        ValueError: If `labels` has not one row a path.
    """

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str | Path],
        labels: Tensor | None = None,
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        max_pixels: int = _MAX_PIXELS,
    ) -> None:
        self.root = Path(root)
        self.paths = [str(path) for path in paths]
        self.labels = Tensor(len(self.paths), 0) if labels is None else labels
        if len(self.labels) != len(self.paths):
            raise ValueError(
                f"`labels` must have {len(self.paths)} rows, one for each of `paths`, got {len(self.labels)}."
            )
        self.transform = transform
        self._described = _describe(transform)
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = read_image(self.root / self.paths[index], max_pixels=self.max_pixels)
        return (image if self.transform is None else self.transform(image)), self.labels[index]

    def identity(self, index: int) -> bytes | None:
        """Digest path, size and time of change of an image file and its preprocessing, 32 bytes; None without a file.

        Transforms are told apart by their `repr`, functions by their qualified name.

        Raises:
            ValueError: If neither says what the transform does, as with a lambda.
        """
        if "Lambda()" in self._described or " at 0x" in self._described:
            raise ValueError(
                f"`transform` must be told apart from others by its repr, got {self._described!r}: write lambdas as "
                "functions, or as classes whose `__repr__` names their settings."
            )
        try:
            path = (self.root / self.paths[index]).resolve()
            stat = path.stat()
        except (OSError, ValueError):  # a name with a null byte is a ValueError
            return None
        described = f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n{self._described}"
        return hashlib.sha256(described.encode("utf-8", "surrogateescape")).digest()
