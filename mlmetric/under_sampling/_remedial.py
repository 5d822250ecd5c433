"""Splitting of rows with both rare and frequent labels into two rows: REMEDIAL."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mlmetric.imbalance import minority_labels, scumble, scumble_per_instance
from mlmetric.imbalance._imbalance_ratios import is_greater
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices


class REMEDIAL(BaseMultiLabelSampler):
    """Split rows with both rare and frequent labels: resampling multi-label data by decoupling (REMEDIAL).

    A row whose SCUMBLE is above the mean of all rows is replaced by two rows with the same features: one with its
    minority labels, followed by one with its other labels. A row is not split if it has only minority labels, or no
    minority label. No label is removed or added, so MeanIR does not change. SCUMBLE usually decreases; the sampler
    warns if it increases.

    The number of rows grows, so this is not undersampling. Use it before an undersampler, so that removing rows with
    frequent labels does not remove rare labels.

    Attributes:
        source_indices_: For each row of the result, the index of its row in the input, ascending; a row that was split
            occurs twice.
        n_unsplit_rows_: Number of rows with SCUMBLE above the mean that were not split, since they have only minority
            labels, or no minority label.
        scumble_before_: SCUMBLE of `y`.
        scumble_after_: SCUMBLE of the result.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, equal to `counts_before_`.
        removed_per_label_: Zeros, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result, equal to `mean_ir_before_`.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import REMEDIAL
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1]])
        >>> sampler = REMEDIAL()
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(6).reshape(-1, 1), y)
        >>> sampler.source_indices_  # MeanIR is 2.8, so label 2 is the only minority label
        array([0, 1, 2, 3, 4, 5, 5])
        >>> y_resampled[5:]
        array([[0, 0, 1],
               [1, 0, 0]])
        >>> sampler.n_unsplit_rows_  # row 3 is above the mean too, but has no minority label
        1

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 326-327, 2019 (arXiv 1802.05033). Deviation: the paper
        appends the second rows at the end of the data. It does not define what happens if one of the two rows has no
        labels.
    """

    _uses_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def __init__(self) -> None:
        super().__init__()

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[RowIndices, LabelArray | None]:
        is_minority = minority_labels(labels)
        scores = scumble_per_instance(labels)
        high = scores > scores.mean() + 1e-12  # far above the rounding error of the mean
        split = high & labels[:, is_minority].any(axis=1) & labels[:, ~is_minority].any(axis=1)
        rows = np.repeat(np.arange(len(labels)), 1 + split)
        result = labels[rows]
        second = np.flatnonzero(np.diff(rows, prepend=-1) == 0)
        result[np.ix_(second - 1, ~is_minority)] = 0
        result[np.ix_(second, is_minority)] = 0
        self.n_unsplit_rows_ = int((high & ~split).sum())
        return rows, result

    def _record_statistics(self, labels: LabelArray, rows: RowIndices, result: LabelArray) -> list[str]:
        problems = super()._record_statistics(labels, rows, result)
        self.scumble_before_, self.scumble_after_ = scumble(labels), scumble(result)
        if is_greater(self.scumble_after_, self.scumble_before_):
            problems.append(f"raised SCUMBLE from {self.scumble_before_:.4g} to {self.scumble_after_:.4g}.")
        return problems

    def _record_indices(self, rows: RowIndices) -> None:
        self.source_indices_ = rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = False
        return tags
