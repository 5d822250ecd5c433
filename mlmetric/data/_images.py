"""Image files and their labels as a data set."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mlmetric._fingerprint import fingerprint
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

    _described: tuple[int, str] = (sys.maxsize, "")  # last index that was asked for, and the preprocessing then

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

        The preprocessing is the transform, and in a subclass its code and attributes: all that these are made of, the
        code of functions and classes that are not part of an installed package, the versions of packages that are.
        Another version of Python has another code of the same functions. It is described anew whenever `index`
        does not increase, as at the start of each pass over the images: what is changed between two passes is noticed.

        Raises:
            TypeError: If the transform holds something that cannot be looked into, as an open file; a method
                `fingerprint()` of its class then says what it is.
            OSError: If the file system fails for another reason than that there is no such file.
        """
        last, described = self._described
        if index <= last:
            beside = ("root", "paths", "labels", "max_pixels", "_described")
            made_of = {name: value for name, value in vars(self).items() if name not in beside}
            described = fingerprint(dataset=type(self), **made_of)
        self._described = (index, described)
        try:
            path = os.path.realpath(self.root / self.paths[index])  # unlike `Path.resolve`, takes a link to itself
            stat = Path(path).stat()
        except (OSError, ValueError) as error:
            if is_absent(error):
                return None
            raise
        content = f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n{described}"
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).digest()
