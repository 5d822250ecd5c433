"""Image files and their labels as a data set."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mlmetric.data._read_image import MAX_PIXELS, is_absent, read_image


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


def _describe(transform: Callable[[Image.Image], Any] | None) -> str:
    if inspect.isfunction(transform) and "<" not in transform.__qualname__:
        return f"{transform.__module__}.{transform.__qualname__}"
    return repr(transform)


class ImageDataset(Dataset[tuple[Any, Tensor]]):
    """Images and their labels, from records.

    An item raises what `read_image` raises; and OSError, which names the image, if its transform lacks memory.

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
        max_pixels: int = MAX_PIXELS,
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
        path = self.root / self.paths[index]
        image = read_image(path, max_pixels=self.max_pixels)
        if self.transform is None:
            return image, self.labels[index]
        try:
            return self.transform(image), self.labels[index]
        except MemoryError as error:
            size = f"{image.width} x {image.height} pixels"
            raise OSError(
                errno.ENOMEM, f"There was too little memory for the `transform` of {path}, {size}."
            ) from error

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
            path = os.path.realpath(self.root / self.paths[index])  # unlike `Path.resolve`, takes a link to itself
            stat = Path(path).stat()
        except (OSError, ValueError) as error:
            if is_absent(error):
                return None
            raise
        described = f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n{self._described}"
        return hashlib.sha256(described.encode("utf-8", "surrogateescape")).digest()
