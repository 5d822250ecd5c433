"""The annotations of images as the reader of each format returns them, before they become a label matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlmetric.data._label_table import Integers


@dataclass(frozen=True)
class LabelledPaths:
    """Annotations of images.

    Attributes:
        root: The folder that `paths` are relative to.
        paths: The normalised paths of N images.
        annotators: The number of annotators of each image, shape `(N,)`.
        images: The index of the image of each of P labels that an annotator chose, shape `(P,)`.
        labels: The index in `label_names` of each of these labels, shape `(P,)`. An annotator chooses a label of an
            image at most once.
        label_names: The names of L labels.
        source: A sentence that states what was read, and how.
        parts: The rows of the images of each part, by the name of the part, ascending; None if there are no parts.
        notes: Sentences on what was left out or is unusual.
    """

    root: Path
    paths: list[str]
    annotators: Integers
    images: Integers
    labels: Integers
    label_names: list[str]
    source: str
    parts: dict[str, Integers] | None = None
    notes: list[str] = field(default_factory=list)


def once(images: Integers, labels: Integers, num_labels: int) -> tuple[Integers, Integers, Integers]:
    """Return each pair of an image and a label once, sorted, and the number of times that it occurred."""
    pairs, counts = np.unique(images * max(num_labels, 1) + labels, return_counts=True)
    images, labels = np.divmod(pairs, max(num_labels, 1))
    return images, labels, counts
