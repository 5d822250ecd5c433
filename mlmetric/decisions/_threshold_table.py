"""The thresholds of all labels as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False, repr=False)
class ThresholdTable:
    """The thresholds of all labels; `str(table)` is a Markdown table with the rarest labels first.

    `pandas.DataFrame(vars(table))` is a data frame.

    Attributes:
        label: Names of the L labels, or their column indices.
        positives: Number of training rows with each label, int64, shape `(L,)`.
        threshold: Lowest score that is predicted, float64, shape `(L,)`.
        spread: Standard deviation of the thresholds of the folds, float64, shape `(L,)`; NaN if fewer than two folds
            have one.
    """

    label: list[Any]
    positives: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    def __repr__(self) -> str:
        return f"ThresholdTable(num_labels={len(self.label)})"

    def __str__(self) -> str:
        names = [str(name) for name in self.label]
        width = max(len("label"), *map(len, names)) if names else len("label")
        lines = [
            f"| {'label':{width}} | positives | threshold |   spread |",
            f"| {'-' * width} | --------: | --------: | -------: |",
        ]
        for i in np.argsort(self.positives, kind="stable"):
            spread = "" if math.isnan(self.spread[i]) else f"{self.spread[i]:.4g}"
            lines.append(f"| {names[i]:{width}} | {self.positives[i]:9d} | {self.threshold[i]:9.4g} | {spread:>8} |")
        return "\n".join(lines)
