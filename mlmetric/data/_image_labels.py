"""Images with labels as they were read from a file of any format, and notes on how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.data._label_cells import similar_names
from mlmetric.data._label_table import Integers
from mlmetric.data._label_text import LabelFileError, listing, number_of
from mlmetric.data._labelled_paths import LabelledPaths, once
from mlmetric.labels import votes_to_labels


@dataclass(frozen=True, eq=False, repr=False)
class ImageLabels:
    """Images and their labels, as `read_image_labels` returns them.

    Attributes:
        root: The folder that `paths` are relative to.
        paths: The paths of N images, normalised, with `/` between folders.
        labels: Multi-hot labels, int64, shape `(N, L)`.
        label_names: The names of the L labels.
        votes: The number of annotators who chose each label, int64, shape `(N, L)`; None if no image was annotated more
            than once.
        num_annotators: The number of annotators of each image, int64, shape `(N,)`; None if `votes` is None.
        parts: The rows of the images of each part of a split, by the name of the part, int64, ascending; None without a
            split.
        source: A sentence that states what was read, and how.
        notes: Sentences on what was left out or is unusual in the file, which `select` does not change.
    """

    root: Path
    paths: list[str]
    labels: Tensor
    label_names: list[str]
    votes: Tensor | None = None
    num_annotators: Tensor | None = None
    parts: dict[str, Tensor] | None = None
    source: str = ""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"ImageLabels({str(self.root)!r}, {len(self.paths)} paths, labels of shape {tuple(self.labels.shape)})"

    def select(self, rows: Sequence[int] | Tensor) -> ImageLabels:
        """Return these images, in this order.

        Args:
            rows: Indices of rows: a sequence or a tensor of integers, or a bool tensor of shape `(N,)`.

        Returns:
            The images; `parts` contains their new rows.
        """
        chosen = torch.arange(len(self.paths))[torch.as_tensor(rows) if len(rows) else torch.arange(0)]
        parts = None
        if self.parts is not None:
            parts = {name: torch.isin(chosen, part).nonzero().flatten() for name, part in self.parts.items()}
        return replace(
            self,
            paths=[self.paths[row] for row in chosen.tolist()],
            labels=self.labels[chosen],
            votes=None if self.votes is None else self.votes[chosen],
            num_annotators=None if self.num_annotators is None else self.num_annotators[chosen],
            parts=parts,
        )

    def names_of(self, row: int) -> list[str]:
        """Return the names of the labels of the image in a row."""
        return [self.label_names[label] for label in self.labels[row].nonzero().flatten().tolist()]

    def soft_labels(self) -> Tensor:
        """Return the share of the annotators who chose each label.

        Returns:
            float32, shape `(N, L)`: votes / annotators, or `labels` if no image was annotated more than once.
        """
        if self.votes is None or self.num_annotators is None:
            return self.labels.float()
        return votes_to_labels(self.votes, self.num_annotators)

    def summary(self) -> str:
        """Describe what was read, in a few lines: the source, the numbers of images and labels, and the notes."""
        of_images, of_labels = self.labels.sum(dim=1), self.labels.sum(dim=0)
        mean = of_images.double().mean().item() if self.paths else 0.0
        most_frequent = of_labels.argsort(descending=True, stable=True).tolist()
        shown = most_frequent if len(most_frequent) <= 8 else [*most_frequent[:4], *most_frequent[-4:]]
        counts = [f"{self.label_names[label]} {int(of_labels[label]):,}" for label in shown]
        if len(shown) < len(most_frequent):
            counts.insert(4, "...")
        lines = [
            self.source,
            f"{number_of(len(self.paths), 'image')} in {self.root}, {number_of(len(self.label_names), 'label')}, "
            f"{mean:.2f} labels per image (at most {int(of_images.max()) if self.paths else 0}); "
            f"{number_of(int((of_images == 0).sum()), 'image')} without label.",
            f"Images of each label: {', '.join(counts)}.",
        ]
        if self.parts is not None:
            sizes = [f"{name} {len(rows):,}" for name, rows in self.parts.items()]
            lines.append(f"Images of each part: {listing(sizes)}.")
        return "\n".join([line for line in lines if line] + self.notes)


def to_image_labels(path: Path, read: LabelledPaths, min_votes: int, min_count: int) -> ImageLabels:
    """Decide which labels each image has and which labels are frequent enough, and write them into a matrix."""
    images, labels, votes = once(read.images, read.labels, len(read.label_names))
    present = votes >= min_votes
    counts = np.bincount(labels[present], minlength=len(read.label_names))
    if not present.any():
        agreed = "" if min_votes == 1 else f" with `min_votes={min_votes}`"
        raise LabelFileError(f"{path} contains no label: no image has one{agreed}.")
    kept = np.flatnonzero(counts >= min_count)
    rare = sorted(np.flatnonzero(counts < min_count).tolist(), key=lambda label: -counts[label])
    if not len(kept):
        raise ValueError(
            f"`min_count` must be at most {counts.max()}, the images of the most frequent label in {path}, "
            f"got {min_count}."
        )
    notes = list(read.notes)
    if rare:
        described = listing((f"{read.label_names[label]} {counts[label]:,}" for label in rare), 20)
        needed = "no image" if min_count == 1 else f"fewer than {min_count:,} images"
        notes.append(f"Labels left out, with {needed} (`min_count={min_count}`): {described}.")
    label_names = [read.label_names[label] for label in kept]
    if similar := similar_names(read.label_names):
        notes.append(f"Labels that look alike: {listing(similar)}.")
    if similar := similar_names(list(read.parts or ())):
        notes.append(f"Parts that look alike: {listing(similar)}.")
    new_label = np.full(len(read.label_names), -1)
    new_label[kept] = np.arange(len(kept))
    is_kept = new_label[labels] >= 0
    hard, counted = is_kept & present, (read.annotators > 1).any()
    shape = (len(read.paths), len(kept))

    def matrix(where: npt.NDArray[Any], values: Integers | int) -> Tensor:
        dense = np.zeros(shape, dtype=np.int64)
        dense[images[where], new_label[labels[where]]] = values
        return torch.from_numpy(dense)

    return ImageLabels(
        read.root,
        read.paths,
        matrix(hard, 1),
        label_names,
        matrix(is_kept, votes[is_kept]) if counted else None,
        torch.from_numpy(read.annotators) if counted else None,
        None if read.parts is None else {name: torch.from_numpy(rows) for name, rows in read.parts.items()},
        read.source,
        notes,
    )
