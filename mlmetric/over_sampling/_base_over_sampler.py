"""The base class of the oversamplers: synthetic rows appended to `X` and `y`, and statistics of the result."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlmetric.over_sampling._type_conversion import append, convert_features_like
from mlmetric.under_sampling._label_sampler import LabelSampler
from mlmetric.under_sampling._type_conversion import LabelArray, convert_labels_like, take_rows


class SyntheticRows(NamedTuple):
    """The rows that a sampler adds."""

    features: Any
    """float64 of shape `(n, d)`, an array or a CSR matrix."""
    labels: LabelArray
    """Multi-hot, shape `(n, L)`."""
    parents: npt.NDArray[np.intp]
    """Shape `(n, 2)`: indices of two rows of the result, the second of which is a neighbour of the first."""


class BaseOverSampler(LabelSampler):
    """Base class of oversamplers for multi-label data; a subclass implements `_fit_resample`.

    `y` is read as by the undersamplers: a two-dimensional `y` is multi-hot; a one-dimensional `y`, or a single column
    with values other than 0 and 1, contains class ids, and so does the result.

    Each sampler records statistics of the result, and warns if MeanIR increased, or if it added more rows than the
    input has.

    Attributes:
        parent_indices_: For each synthetic row, the indices of the two rows of the result that it lies between, intp of
            shape `(n, 2)`: the row that it was made from, and a neighbour of that row. Indices below N are rows of the
            input.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        added_per_label_: Positives that each label gained, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.
        sampling_strategy_: Positives of each label in `y` as a dict of label index to count, the attribute that
            imbalanced-learn requires of a fitted sampler.
        n_features_in_: Number of columns of `X`.
        feature_names_in_: Column names of `X`, if `X` has column names that are all strings.
    """

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Add synthetic rows.

        Args:
            X: Features of shape `(N, d)`, finite numbers: an array, a tensor, a list, a scipy sparse matrix or a pandas
                data frame.
            y: Multi-hot labels of shape `(N, L)`, of any of these types, or class ids of shape `(N,)`.

        Returns:
            `X` and `y` with the synthetic rows appended, with the type, the dtype and, for data frames, the columns of
            the input. Values of integer columns are rounded. In data frames, a synthetic row has the index label of the
            row of the input that it was made from.

        Raises:
            TypeError: If `y` contains lists or sets of label names, or `X` or `y` is of another type.
            ValueError: If a parameter is out of range, `X` contains NaN or infinity, `y` contains NaN, `y` is neither
                multi-hot nor class ids of at least two classes, or the lengths differ.
        """
        return self._resample(X, y)

    def _resample(self, X: Any, y: Any, **context: Any) -> tuple[Any, Any]:
        self._validate_params()
        features, labels, has_class_ids = self._check_X_y(X, y, uses_features=True)
        features = features.tocsr() if hasattr(features, "tocsr") else features
        rows = self._fit_resample(features, labels, has_class_ids=has_class_ids, **context)
        for problem in self._record_statistics(labels, rows):
            warnings.warn(f"{type(self).__name__} {problem}", UserWarning, stacklevel=3)
        origins = _origins(len(labels), rows.parents)
        new_X = convert_features_like(take_rows(X, origins), rows.features, features.dtype)
        if has_class_ids:
            classes, examples = np.unique(labels.argmax(axis=1), return_index=True)
            new_y = take_rows(y, examples[np.searchsorted(classes, rows.labels.argmax(axis=1))])
            new_y = new_y.set_axis(y.index[origins]) if hasattr(new_y, "set_axis") else new_y
        else:
            new_y = convert_labels_like(take_rows(y, origins), rows.labels)
        return append(X, new_X), append(y, new_y)

    @abstractmethod
    def _fit_resample(self, X: Any, labels: LabelArray, *, has_class_ids: bool, **context: Any) -> SyntheticRows:
        """Return the rows to add to `X`, an array or a CSR matrix, and `labels`."""

    def _record_statistics(self, labels: LabelArray, rows: SyntheticRows) -> list[str]:
        """Set the fitted attributes, and return the warnings."""
        problems = self._count_labels(labels, np.concatenate([labels, rows.labels]))
        self.added_per_label_ = self.counts_after_ - self.counts_before_
        self.parent_indices_ = rows.parents
        if len(rows.labels) > len(labels):
            problems.append(f"added {len(rows.labels)} rows to {len(labels)}, more than doubling them.")
        return problems


def _origins(num_rows: int, parents: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the row of the input that each synthetic row was made from, directly or through other synthetic rows."""
    origins = parents[:, 0].copy()
    while (is_synthetic := origins >= num_rows).any():
        origins[is_synthetic] = parents[origins[is_synthetic] - num_rows, 0]
    return origins
