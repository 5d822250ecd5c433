"""Images with labels, wherever they come from: what the pipeline runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels.

    Attributes:
        title: What they are, for headings.
        root: The folder that `paths` are relative to.
        paths: N paths.
        labels: What is evaluated, multi-hot, shape `(N, L)`.
        targets: What is trained on, shape `(N, L)`: the labels, or soft ones.
        label_names: L names.
        synthetic: Whether they were made by a program.
        notes: What a reader must know of them, a sentence each.
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
