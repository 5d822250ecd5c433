"""Images with labels, and the table of their predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from common.files import write_atomically


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels.

    Attributes:
        title: A description of the images, for headings.
        root: The folder that `paths` are relative to.
        paths: The paths of N images.
        labels: Multi-hot labels for evaluation, shape `(N, L)`.
        targets: Labels for training, shape `(N, L)`: the same, or soft labels.
        label_names: The names of the L labels.
        synthetic: Whether the images are synthetic.
        notes: Sentences about the images for the report.
    """

    title: str
    root: Path
    paths: list[str]
    labels: Tensor
    targets: Tensor
    label_names: list[str]
    synthetic: bool = False
    notes: list[str] = field(default_factory=list)

    def select(self, rows: Sequence[int] | Tensor) -> LabelledImages:
        """Return these rows, in this order."""
        rows = torch.as_tensor(rows)
        return replace(
            self,
            paths=[self.paths[row] for row in rows.tolist()],
            labels=self.labels[rows],
            targets=self.targets[rows],
        )

    def names_of(self, row: int) -> list[str]:
        """Return the names of the labels of a row."""
        return [self.label_names[label] for label in self.labels[row].nonzero().flatten().tolist()]


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
