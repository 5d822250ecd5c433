"""The predictions of a run as a table that a spreadsheet reads."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .files import open_whole
from .labelled_images import LabelledImages


def save_predictions(
    path: Path, images: LabelledImages, parts: Mapping[str, Tensor], scores: Tensor, thresholds: Tensor
) -> None:
    """Write `predictions.csv`: for each image of some parts its labels, what is predicted, and each probability."""
    names = images.label_names
    with open_whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "part", "labels", "predicted", *(f"probability_{name}" for name in names)])
        for part, rows in parts.items():
            for row in rows.tolist():
                decided = (scores[row] >= thresholds).tolist()
                predicted = [name for name, yes in zip(names, decided, strict=True) if yes]
                probabilities = [f"{score:.6f}" for score in scores[row].tolist()]
                labels = images.names_of(row)
                writer.writerow([images.paths[row], part, "|".join(labels), "|".join(predicted), *probabilities])
