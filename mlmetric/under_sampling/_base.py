"""What all samplers share: how `X` and `y` are read, rows taken, results given back and removals reported."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from imblearn.base import BaseSampler
from scipy import sparse
from sklearn.utils import _safe_indexing, check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from mlmetric.imbalance import mean_ir

LabelArray: TypeAlias = npt.NDArray[np.uint8]
Rows: TypeAlias = npt.NDArray[np.intp]


class BaseMultiLabelSampler(BaseSampler):
    """Base of the samplers for multi-label data; a sampler implements `_fit_resample`.

    imbalanced-learn's samplers refuse label matrices, or take rows with at most one label for classes. This base reads
    `y` as label sets. A two-dimensional `y` is multi-hot. A one-dimensional `y` holds class ids, each row's label set
    being its class, and is given back as it came; so does a single column with values other than 0 and 1.

    Attributes:
        sampling_strategy_: dict of label index to its positives in `y`; the host wants it of a fitted sampler.
        n_features_in_: Number of columns of `X`.
        feature_names_in_: Column names of `X`, if it has any that are all strings.
    """

    _sampling_type = "bypass"

    def fit(self, X: Any, y: Any) -> BaseMultiLabelSampler:
        """Check parameters and data; resampling is `fit_resample`.

        Args:
            X: Shape `(N, d)`.
            y: Multi-hot labels of shape `(N, L)`, or class ids of shape `(N,)`.

        Returns:
            The sampler itself.

        Raises:
            ValueError: As for `fit_resample`.
        """
        self._validate_params()
        self._check_X_y(X, y)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Resample the data.

        Args:
            X: Array, tensor, list, scipy sparse matrix or data frame of shape `(N, d)`, finite numbers.
            y: Multi-hot labels of shape `(N, L)`, any of these kinds, or class ids of shape `(N,)`.

        Returns:
            `X` and `y` resampled, each of the kind, the dtype and, for data frames, the index and columns it came in.

        Raises:
            TypeError: If the sampler edits labels and `y` is of another kind.
            ValueError: If a parameter is out of range, an entry of `X` or `y` NaN, `y` neither multi-hot nor class
                ids of at least two classes, the lengths differ, every row would go, or a class id would be cleared.
        """
        self._validate_params()
        features, labels, holds_class_ids = self._check_X_y(X, y)
        rows, edited = self._fit_resample(features, labels)
        X, y = _take(X, rows), _take(y, rows)
        if edited is None:
            return X, y
        if not holds_class_ids:
            return X, _write(y, edited)
        cleared = int((~edited.any(axis=1)).sum())
        if cleared:
            raise ValueError(
                f"`y` holds class ids, so each row must keep its class, but {type(self).__name__} would clear it in "
                f"{cleared} rows. Pass a multi-hot `y` of shape (N, L), or have such rows dropped."
            )
        return X, y

    @abstractmethod
    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        """Return the rows of the result, in order, and their labels where these are not the rows' own."""

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, LabelArray, bool]:  # noqa: N802, the host's name
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        X = validate_data(self, X, accept_sparse=["csr", "csc"])
        labels, holds_class_ids = _read(y)
        check_consistent_length(X, labels)
        self.sampling_strategy_ = dict(enumerate(labels.sum(axis=0).tolist()))
        return X, labels, holds_class_ids

    def _keep_rows(self, labels: LabelArray, kept: npt.NDArray[np.bool_]) -> Rows:
        """Turn a mask of rows into row numbers, recording and warning of what their removal does to the labels."""
        name = type(self).__name__
        if not kept.any():
            raise ValueError(
                f"{name} would remove every one of the {len(labels)} rows. Choose parameters that spare some."
            )
        self.sample_indices_ = np.flatnonzero(kept)
        self.removed_per_label_ = labels[~kept].sum(axis=0, dtype=np.int64)
        self.mean_ir_before_ = mean_ir(labels)
        self.mean_ir_after_ = mean_ir(labels[kept])
        num_removed = len(labels) - len(self.sample_indices_)
        vanished = np.flatnonzero(labels.any(axis=0) & ~labels[kept].any(axis=0)).tolist()
        if 2 * num_removed > len(labels):
            self._warn(f"removed {num_removed} of {len(labels)} rows, more than half.")
        if self.mean_ir_after_ > self.mean_ir_before_:
            self._warn(f"raised MeanIR from {self.mean_ir_before_:.4g} to {self.mean_ir_after_:.4g}.")
        if vanished:
            self._warn(f"removed every positive of labels {vanished}; MeanIR no longer counts them.")
        return self.sample_indices_

    def _warn(self, what: str) -> None:
        warnings.warn(f"{type(self).__name__} {what}", UserWarning, stacklevel=5)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.sampler_tags.sample_indices = True
        return tags


def _read(y: Any) -> tuple[LabelArray, bool]:
    """Read `y` as a hard label matrix, and say whether it holds class ids."""
    checked = check_array(y, accept_sparse=True, dtype=None, ensure_2d=False, input_name="y")
    values = checked.toarray() if sparse.issparse(checked) else checked
    hard = (values == 0) | (values == 1)
    if values.ndim == 1 or (values.shape[1] == 1 and not hard.all()):
        check_classification_targets(values)
        classes, ids = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ValueError("`y` must hold at least 2 classes where it holds class ids, got 1 class.")
        return np.eye(len(classes), dtype=np.uint8)[ids.ravel()], True
    if not hard.all():
        row, column = np.argwhere(~hard)[0]
        raise ValueError(
            f"`y` must hold hard labels, 0 or 1, got {values[row].tolist()[column]!r} at row {row}, label {column}. "
            "Soft labels become hard by a threshold, say `y >= 0.5`; votes by `mlmetric.labels.votes_to_labels`."
        )
    return values.astype(np.uint8), False


def _take(data: Any, rows: Rows) -> Any:
    if sparse.issparse(data):
        return data.tocsr()[rows].asformat(data.format)
    return _safe_indexing(data, rows)


def _write(y: Any, labels: LabelArray) -> Any:
    """Return `labels` in the kind and dtype of `y`, rows just taken from the caller's object."""
    if isinstance(y, torch.Tensor):
        return torch.from_numpy(labels).to(y)
    if isinstance(y, list):
        return labels.astype(np.asarray(y).dtype).tolist()
    if sparse.issparse(y):
        return type(y)(labels.astype(y.dtype))
    if hasattr(y, "isetitem"):
        for column in range(labels.shape[1]):
            values = y.iloc[:, column]
            y.isetitem(column, type(values)(labels[:, column], index=y.index).astype(values.dtype))
        return y
    if isinstance(y, np.ndarray):
        return labels.astype(y.dtype)
    raise TypeError(
        f"`y` must be an array, a tensor, a list, a scipy sparse matrix or a pandas data frame to be edited, got "
        f"{type(y).__name__}. Pass `numpy.asarray(y)`."
    )
