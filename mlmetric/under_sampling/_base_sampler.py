"""The base class of the undersamplers: resampling of `X` and `y`, and statistics of the result."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from math import floor
from typing import Any

import numpy as np

from mlmetric.under_sampling._label_sampler import LabelSampler
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices, convert_labels_like, take_rows


class BaseMultiLabelSampler(LabelSampler):
    """Base class of undersamplers for multi-label data; a subclass implements `_fit_resample`.

    The samplers of imbalanced-learn reject label matrices, or treat rows with at most one label as classes. This base
    class reads `y` as label sets. A two-dimensional `y` is multi-hot. A one-dimensional `y`, or a single column with
    values other than 0 and 1, contains class ids: label i is the i-th class in sorted order, the label set of a row is
    its class, and the result contains class ids too.

    Each sampler records statistics of the result, and warns if MeanIR increased, more than half of the rows were
    removed, or a label lost all its positives.

    Attributes:
        sample_indices_: Indices of the rows of the input that the result consists of, ascending. `REMEDIAL`, whose
            result contains some rows twice, has `source_indices_` instead.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.
        sampling_strategy_: Positives of each label in `y` as a dict of label index to count, the attribute that
            imbalanced-learn requires of a fitted sampler.
        n_features_in_: Number of columns of `X`.
        feature_names_in_: Column names of `X`, if `X` has column names that are all strings.
    """

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Resample the data.

        Args:
            X: Features of shape `(N, d)`: an array, a tensor, a list, a scipy sparse matrix or a data frame. Samplers
                that search for nearest neighbours require finite numbers. The other samplers only use `y`, and accept
                any `X`: NaN, strings, file paths.
            y: Multi-hot labels of shape `(N, L)`, of any of these types, or class ids of shape `(N,)`.

        Returns:
            The resampled `X` and `y`, with the type, the dtype and, for data frames, the index and the columns of the
            input.

        Raises:
            TypeError: If `y` contains lists or sets of label names, or the sampler changes labels and `y` is of another
                type.
            ValueError: If a parameter is out of range, `y` contains NaN, `y` is neither multi-hot nor class ids of at
                least two classes, `X` contains NaN or infinity and the sampler uses it, the lengths differ, all rows
                would be removed, or a row would lose its class id.
        """
        return self._resample(X, y, self._uses_features)

    def _resample(self, X: Any, y: Any, uses_features: bool, **context: Any) -> tuple[Any, Any]:
        self._validate_params()
        features, labels, has_class_ids = self._check_X_y(X, y, uses_features)
        rows, changed = self._fit_resample(features, labels, **context)
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} would remove all {len(labels)} rows. Choose parameters that keep some of them."
            )
        num_cleared = 0 if changed is None or not has_class_ids else int((~changed.any(axis=1)).sum())
        if num_cleared:
            raise ValueError(
                f"`y` contains class ids, so each row must keep its class, but {type(self).__name__} would remove the "
                f"class of {num_cleared} rows. Pass a multi-hot `y` of shape (N, L), or choose parameters that remove "
                "such rows."
            )
        result = labels[rows] if changed is None else changed
        for problem in self._record_statistics(labels, rows, result):
            warnings.warn(f"{type(self).__name__} {problem}", UserWarning, stacklevel=3)
        X, y = take_rows(X, rows), take_rows(y, rows)
        return X, y if changed is None or has_class_ids else convert_labels_like(y, changed)

    @abstractmethod
    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[RowIndices, LabelArray | None]:
        """Return the rows of the result, in order, and their labels, or None if these are unchanged."""

    def _record_statistics(self, labels: LabelArray, rows: RowIndices, result: LabelArray) -> list[str]:
        """Set the fitted attributes, and return a warning for each statistic that became worse."""
        self._record_indices(rows)
        raised = self._count_labels(labels, result)
        self.removed_per_label_ = self.counts_before_ - self.counts_after_
        problems = []
        num_removed = len(labels) - len(rows)
        if 2 * num_removed > len(labels):
            problems.append(f"removed {num_removed} of {len(labels)} rows, more than half.")
        problems += raised
        lost = np.flatnonzero((self.counts_before_ > 0) & (self.counts_after_ == 0)).tolist()
        if lost:
            problems.append(f"removed all positives of labels {lost}; MeanIR leaves these labels out.")
        return problems

    def _record_indices(self, rows: RowIndices) -> None:
        self.sample_indices_ = rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = True
        return tags


def num_rows_of(percentage: float, num_rows: int) -> int:
    """Return how many rows a percentage of `num_rows` is, rounded down.

    The tolerance keeps 0.57 % of 10,000 rows at 57, although the product is below 57 in floating point.
    """
    return floor(num_rows * percentage / 100 + 1e-9)
