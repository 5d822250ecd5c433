"""Rows split in two where rare and frequent labels meet in them: REMEDIAL."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mlmetric.imbalance import minority_labels, scumble, scumble_per_instance
from mlmetric.under_sampling._base import BaseMultiLabelSampler, exceeds
from mlmetric.under_sampling._data import LabelArray, Rows


class REMEDIAL(BaseMultiLabelSampler):
    """Split rows in which rare and frequent labels meet: resampling multi-label sets by decoupling (REMEDIAL).

    A row whose SCUMBLE is above the mean over all rows becomes two with the same features, one with its minority labels
    and after it one with the rest. No label is lost and none is added, so MeanIR stays as it is; what falls, as a rule,
    is SCUMBLE, and a warning says so where it rose. The set grows: this is no undersampling, but it stands before one,
    for it frees rare labels of the rows that frequent ones are removed with.

    A row all of whose labels would go to one side has no second half to be split from; it stays whole.

    Attributes:
        source_indices_: For each row of the result the row of the input that it comes from, ascending; a row that was
            split is there twice.
        n_whole_rows_: Number of rows above the mean that stayed whole for want of a second half.
        scumble_before_: SCUMBLE of `y`.
        scumble_after_: SCUMBLE of the result.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: The same.
        removed_per_label_: All 0, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: The same.

    Examples:
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1]])
        >>> sampler = REMEDIAL()
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(6).reshape(-1, 1), y)
        >>> sampler.source_indices_  # MeanIR is 2.8, so label 2 alone is a minority label
        array([0, 1, 2, 3, 4, 5, 5])
        >>> y_resampled[5:]
        array([[0, 0, 1],
               [1, 0, 0]])
        >>> sampler.n_whole_rows_  # row 3 is above the mean too, but has no minority label
        1

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 326-327, 2019 (arXiv 1802.05033). It appends the second
        halves at the end of the set, and is silent on empty ones.
    """

    _reads_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self) -> None:
        super().__init__()

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        is_minority = minority_labels(labels)
        mixed = scumble_per_instance(labels)
        # Far above the error of a mean, so that rows at the mean are not above it.
        high = mixed > mixed.mean() + 1e-12
        split = high & labels[:, is_minority].any(axis=1) & labels[:, ~is_minority].any(axis=1)
        rows = np.repeat(np.arange(len(labels)), 1 + split)
        result = labels[rows]
        second = np.flatnonzero(np.diff(rows, prepend=-1) == 0)
        result[np.ix_(second - 1, ~is_minority)] = 0
        result[np.ix_(second, is_minority)] = 0
        self.n_whole_rows_ = int((high & ~split).sum())
        return rows, result

    def _give_account(self, labels: LabelArray, rows: Rows, result: LabelArray) -> list[str]:
        worse = super()._give_account(labels, rows, result)
        self.scumble_before_, self.scumble_after_ = scumble(labels), scumble(result)
        if exceeds(self.scumble_after_, self.scumble_before_):
            worse.append(f"raised SCUMBLE from {self.scumble_before_:.4g} to {self.scumble_after_:.4g}.")
        return worse

    def _record_rows(self, rows: Rows) -> None:
        self.source_indices_ = rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = False
        return tags
