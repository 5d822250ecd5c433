"""What estimators are given, checked, as tensors."""

from __future__ import annotations

import warnings
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.utils.validation import validate_data
from torch import Tensor

from mlmetric.data import stratified_split
from mlmetric.labels import check_labels


class Rows(NamedTuple):
    """Features `(n, D)` and labels `(n, L)`, float32, to train on or to choose by."""

    features: Tensor
    labels: Tensor

    def select(self, rows: Tensor) -> Rows:
        """Take some of the rows."""
        return Rows(self.features[rows], self.labels[rows])

    @property
    def hard(self) -> Rows:
        """The same with labels 0 and 1: soft ones count from one half."""
        return Rows(self.features, (self.labels >= 0.5).to(self.labels.dtype))


def read_training_rows(estimator: Any, X: Any, y: Any, *, reset: bool = True) -> Rows:
    """Check what `fit` is given, and with `reset` note the number and the names of the features."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None: give labels "
            "of shape (n, L)."
        )
    features = validate_data(estimator, X, dtype=np.float32, reset=reset, ensure_min_samples=2 if reset else 1)
    labels = y.toarray() if sparse.issparse(y) else _as_array(y)
    if labels.dtype == object and all(isinstance(value, Number) for value in labels.flat):
        labels = labels.astype(np.float64)  # a frame with nullable dtypes
    if labels.dtype.kind not in "biuf":
        raise ValueError(
            f"Unknown label type: `y` must hold numbers, 0 or 1 for each label of each row, got dtype {labels.dtype}. "
            "Names of labels become these by `sklearn.preprocessing.MultiLabelBinarizer`."
        )
    check_labels(labels, name="y")
    if len(labels) != len(features):
        raise ValueError(f"`X` and `y` must have as many rows, got {len(features)} and {len(labels)}.")
    if labels.shape[1] == 0:
        raise ValueError("`y` must have a column for each label, got 0 columns.")
    if labels.any() and labels.max() < 0.5:
        warnings.warn(
            "No label of `y` reaches one half, from which soft ones count as present where rows are held back, epochs "
            f"scored and thresholds chosen; the highest is {labels.max():.3g}. Scale them, or pass `validation`.",
            stacklevel=4,
        )
    return Rows(_as_tensor(features), torch.from_numpy(labels.astype(np.float32)))


def _as_array(y: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(y)
    except ValueError as error:  # rows of different lengths
        raise ValueError(
            "Unknown label type: `y` must hold numbers, 0 or 1 for each label of each row, got rows of different "
            "lengths. Lists of labels become these by `sklearn.preprocessing.MultiLabelBinarizer`."
        ) from error


def read_validation_rows(estimator: Any, validation: tuple[Any, Any]) -> Rows:
    """Check the rows to choose by as those to train on; whoever gave them is told which are meant."""
    try:
        X, y = validation
        return read_training_rows(estimator, X, y, reset=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`validation` must be a pair of features `X` and labels `y`: {error}") from error


def read_rows(estimator: Any, X: Any) -> Tensor:
    """Check what a fitted estimator is given."""
    return _as_tensor(validate_data(estimator, X, dtype=np.float32, reset=False))


def _as_tensor(features: npt.NDArray[np.float32]) -> Tensor:
    # torch warns of arrays that it could write to but must not.
    return torch.from_numpy(features if features.flags.writeable else features.copy())


def hold_back(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows | None]:
    """Hold a part of the rows back, stratified by label, to choose by; one row if more would leave fewer than two."""
    if not 0 <= fraction < 1:
        raise ValueError(f"`validation_fraction` must be in [0, 1), got {fraction}.")
    if fraction == 0 or len(rows.labels) < 3:
        return rows, None
    kept, held_back = stratified_split(
        rows.hard.labels, (1 - fraction, fraction), generator=torch.Generator().manual_seed(seed)
    )
    if len(held_back) == 0 or len(kept) < 2:
        order = torch.randperm(len(rows.labels), generator=torch.Generator().manual_seed(seed))
        kept, held_back = order[:-1], order[-1:]
    return rows.select(kept), rows.select(held_back)
