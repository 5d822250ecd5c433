"""Images with labels, and the table of their predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from common.files import write_atomically
from mlmetric.data import ImageLabels


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages(ImageLabels):
    """Images and labels, with further facts that a run requires.

    Attributes:
        title: A description of the images, for headings.
        soft: Whether soft labels, the shares of the annotators, are the targets of the training.
        synthetic: Whether the images are synthetic.
        texts: The texts of images, by path, including other images; None for a run without text.
        headlines: The texts that are drawn on synthetic images, by path, to check the texts that are read from them.
    """

    title: str = ""
    soft: bool = False
    synthetic: bool = False
    texts: Mapping[str, Sequence[str]] | None = None
    headlines: Mapping[str, Sequence[str]] | None = None

    @property
    def targets(self) -> Tensor:
        """The labels for training, shape `(N, L)`: `labels`, which are also those for evaluation, or soft labels."""
        return self.soft_labels() if self.soft else self.labels


def save_predictions(
    path: Path, images: LabelledImages, parts: Mapping[str, Tensor], scores: Tensor, thresholds: Tensor
) -> None:
    """Write a CSV file with the labels, the predicted labels and the probabilities of each image.

    Args:
        path: The file.
        images: N images.
        parts: The rows of each part, such as validation and test; the part is a column.
        scores: Probabilities, shape `(N, L)`.
        thresholds: The threshold of each label, shape `(L,)`.
    """
    names = images.label_names
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "part", "labels", "predicted", *(f"probability_{name}" for name in names)])
    for part, rows in parts.items():
        for row in rows.tolist():
            decisions = (scores[row] >= thresholds).tolist()
            predicted = [name for name, positive in zip(names, decisions, strict=True) if positive]
            probabilities = [f"{score:.6f}" for score in scores[row].tolist()]
            labels = images.names_of(row)
            writer.writerow([images.paths[row], part, "|".join(labels), "|".join(predicted), *probabilities])
    write_atomically(path, text.getvalue())
