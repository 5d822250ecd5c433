"""Image files and their labels as a data set."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import Dataset

from mlmetric._digest import sha256_hex
from mlmetric._fingerprint import fingerprint
from mlmetric._repr import short_repr
from mlmetric.data._image_file import MAX_PIXELS, means_absent, read_image
from mlmetric.labels import LabelsLike, label_tensor

if TYPE_CHECKING:
    from PIL import Image

_SHOWN_REASONS = 20
_SKIP_THEM = (
    "Repair or remove them, or skip them (`on_bad_image='skip'`, `--on-bad-image skip` in the examples). The features "
    "of all other images are computed and kept."
)


class BadImagesError(ValueError):
    """Raised for one or more images that cannot be read.

    Attributes:
        reasons: For each bad image, a message that names the file and the reason; the error shows up to 20 of them.
        num_images: The total number of images.
    """

    def __init__(self, reasons: Sequence[str], num_images: int, *, advice: str = _SKIP_THEM) -> None:
        self.reasons = list(reasons)
        self.num_images = num_images
        self._advice = advice
        others = [f"\n{reason}" for reason in self.reasons[1:_SHOWN_REASONS]]
        more = len(self.reasons) - _SHOWN_REASONS
        super().__init__(
            f"{len(self.reasons)} of {num_images} images cannot be read; the first: {self.reasons[0]} {advice}"
            + (f" The others:{''.join(others)}" if others else "")
            + (f"\nand {more} more, in `reasons`." if more > 0 else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:  # without it, unpickling would call the class with the message only
        return partial(type(self), advice=self._advice), (self.reasons, self.num_images)


class ImageDataset(Dataset[tuple[Any, Tensor]]):
    """A map-style data set of image files and their labels.

    An item is a pair of an image, transformed, and its row of `labels`. Reading an item raises the errors of
    `read_image`, or an OSError that names the image if the transform runs out of memory.

    Args:
        root: The folder that `paths` are relative to.
        paths: The N image files, relative to `root` or absolute.
        labels: A row for each path, shape `(N, L)`, in [0, 1], of any kind that `mlmetric.labels.check_labels` reads,
            NaN for labels that are not annotated; None for no labels, shape `(N, 0)`.
        transform: Applied to each image, a `PIL.Image.Image` in RGB; None to return the image itself.
        max_pixels: The largest number of pixels of an image; a larger image raises BadImageError.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If `labels` is not a matrix in [0, 1] with one row for each path.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from PIL import Image
        >>> from mlmetric.data import ImageDataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (30, 20)).save(folder / "sea.png")
        >>> dataset = ImageDataset(folder, ["sea.png"], torch.tensor([[1, 0]]))
        >>> image, labels = dataset[0]
        >>> image.size, labels.tolist()
        ((30, 20), [1, 0])
    """

    _inspected: tuple[int, str] = (sys.maxsize, "")  # the last index passed to `identity`, and the fingerprint then

    def __init__(
        self,
        root: str | Path,
        paths: Sequence[str | Path],
        labels: LabelsLike | None = None,
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root = Path(root)
        self.paths = [str(path) for path in paths]
        self.labels = Tensor(len(self.paths), 0) if labels is None else label_tensor(labels, allow_missing=True)
        if len(self.labels) != len(self.paths):
            raise ValueError(
                f"`labels` must have {len(self.paths)} rows, one for each of `paths`, got {len(self.labels)}."
            )
        self.transform = transform
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        transform = "None" if self.transform is None else short_repr(self.transform)
        return (
            f"ImageDataset({str(self.root)!r}, {len(self.paths)} paths, labels of shape {tuple(self.labels.shape)}, "
            f"transform={transform}, max_pixels={self.max_pixels})"
        )

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
                errno.ENOMEM, f"There was not enough memory for the `transform` of {path}, {size}."
            ) from error

    def identity(self, index: int) -> bytes | None:
        """Return a digest of an image file and its preprocessing.

        The digest includes the path, size and modification time of the file, and the preprocessing: the transform and,
        for a subclass, its code and attributes. Objects are described by their attributes and arguments, functions and
        classes by their code, or by the version of the installed package that they belong to. The digest of code
        differs between versions of Python. The preprocessing is inspected again whenever `index` does not increase, as
        at the start of each pass over the images, so that a change between two passes is noticed.

        Args:
            index: The image.

        Returns:
            32 bytes; None if the file does not exist.

        Raises:
            TypeError: If the transform contains an object that cannot be inspected, such as an open file; give its
                class a method `fingerprint()` that returns a string.
            OSError: If the file system fails for any reason other than that the file does not exist.
        """
        last, described = self._inspected
        if index <= last:
            not_inspected = ("root", "paths", "labels", "max_pixels", "_inspected")
            attributes = {name: value for name, value in vars(self).items() if name not in not_inspected}
            described = fingerprint(dataset=type(self), **attributes)
        self._inspected = (index, described)
        try:
            path = os.path.realpath(self.root / self.paths[index])  # unlike `Path.resolve`, accepts a link to itself
            stat = Path(path).stat()
        except (OSError, ValueError) as error:
            if means_absent(error):
                return None
            raise
        content = f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n{described}"
        return bytes.fromhex(sha256_hex([content]))
