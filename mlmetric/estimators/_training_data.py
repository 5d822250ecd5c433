"""Reading of the data that the estimators are fitted on: features, label matrices and label names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.validation import validate_data
from torch import Tensor

from mlmetric._views import check_missing_views, read_views
from mlmetric.labels import LabelsLike, label_array

LabelsOrNames: TypeAlias = LabelsLike | Sequence[Iterable[str]]
"""A label matrix of any kind that `check_labels` reads, or for each row its label names."""


class TrainingData(NamedTuple):
    """Rows to train on or to validate with.

    Attributes:
        features: Shape `(n, D)`, float32; NaN where a row lacks a view.
        labels: Shape `(n, L)`, float32.
        views: The views of the features; None for features without views.
    """

    features: Tensor
    labels: Tensor
    views: dict[str, slice] | None = None

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Features and labels."""
        return self.features, self.labels

    def select(self, rows: Tensor) -> TrainingData:
        """Return some of the rows."""
        return self._replace(features=self.features[rows], labels=self.labels[rows])

    def of_view(self, columns: slice) -> TrainingData:
        """Return the rows that have a view, with its features only."""
        features = self.features[:, columns]
        return TrainingData(features, self.labels).select(~features[:, 0].isnan())

    @property
    def hard(self) -> TrainingData:
        """The same rows with labels 0 and 1: soft labels of at least 0.5 become 1."""
        return self._replace(labels=(self.labels >= 0.5).to(self.labels.dtype))


class LabelColumns(NamedTuple):
    """The columns of the labels that an estimator was fitted on: their number, and their names if `y` had any."""

    number: int
    names: list[Any] | None


def read_labels(y: LabelsOrNames, *, columns: LabelColumns | None = None) -> tuple[npt.NDArray[Any], LabelColumns]:
    """Return a label matrix and its columns.

    Args:
        y: A label matrix of any kind that `check_labels` reads, or label names for each row.
        columns: The columns of `fit`; label names and data frames are then brought into their order.

    Returns:
        The matrix, shape `(n, L)`, and its columns; names are sorted.

    Raises:
        TypeError: If `y` contains neither numbers nor names.
        ValueError: If it is not a matrix in [0, 1], or has other columns.
    """
    names = _label_names(y)
    if names is not None:
        if columns is None:
            columns = LabelColumns(0, sorted({label for row in names for label in row}))
        if columns.names is None:
            raise ValueError("`y` must be a label matrix as in `fit`, got label names.")
        unknown = {label for row in names for label in row} - set(columns.names)
        if unknown:
            raise ValueError(f"`y` has labels that are not in `classes_`: {sorted(unknown)}.")
        matrix = MultiLabelBinarizer(classes=columns.names).fit_transform(names)
        return matrix, LabelColumns(matrix.shape[1], columns.names)
    given = None if not hasattr(y, "columns") else list(y.columns)
    if given is not None and columns is not None and columns.names is not None:
        if len(given) != len(columns.names) or set(given) != set(columns.names):
            raise ValueError(f"`y` must have the columns {columns.names}, got {given}.")
        y = y[columns.names]  # type: ignore[call-overload,index]
    labels = label_array(y, name="y")
    if columns is not None and columns.number != labels.shape[1]:
        raise ValueError(f"`y` must have the {columns.number} labels of `fit`, got {labels.shape[1]}.")
    return labels, columns or LabelColumns(labels.shape[1], given)


def classes_of(columns: LabelColumns) -> npt.NDArray[Any]:
    """Return `classes_`: names, or `[0, 1]` for each label, shape `(L, 2)`.

    scikit-learn's scorers mistake one or two names for the classes of a binary target, so that fewer than three labels
    have `[0, 1]` for each label, too.
    """
    if columns.names is None or columns.number < 3:
        return np.tile([0, 1], (columns.number, 1))
    return np.array(columns.names, dtype=object)


def _label_names(y: Any) -> list[Any] | None:
    """Return rows of label names as a list; None if `y` is anything else."""
    if sparse.issparse(y) or getattr(y, "ndim", 1) != 1:
        return None
    try:
        rows = list(y)
    except TypeError:
        return None
    if not all(isinstance(row, list | tuple | set | frozenset | np.ndarray) for row in rows):
        return None
    is_names = all(isinstance(label, str) for row in rows for label in row) and any(len(row) for row in rows)
    return rows if is_names else None


def read_training_data(estimator: Any, X: Any, y: Any) -> TrainingData:
    """Check the arguments of `fit`, and set the number and names of features, and the classes, of the estimator."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None: pass labels "
            "of shape (n, L)."
        )
    features = _read_features(estimator, X, ensure_min_samples=2)
    views = _views(estimator) or {}
    for name, columns in views.items():
        if int((present := ~features[:, columns.start].isnan()).sum()) < 2:
            raise ValueError(
                f"The view {name!r} is in {int(present.sum())} of {len(features)} rows of `X`, but at least 2 are "
                "required: leave its columns out, or pass rows with it."
            )
    labels, estimator._label_columns = read_labels(y)
    estimator.classes_ = classes_of(estimator._label_columns)
    if labels.shape[1] == 0:
        raise ValueError("`y` must have a column for each label, got 0 columns.")
    return _to_training_data(features, labels, estimator)


def read_validation_data(estimator: Any, validation: tuple[Any, Any]) -> TrainingData:
    """Check the validation rows like the training rows; messages name the argument."""
    try:
        X, y = validation
        features = _read_features(estimator, X, reset=False)
        return _to_training_data(features, read_labels(y, columns=estimator._label_columns)[0], estimator)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`validation` must be a pair of features `X` and labels `y`: {error}") from error


def _to_training_data(features: Tensor, labels: npt.NDArray[Any], estimator: Any) -> TrainingData:
    if len(labels) != len(features):
        raise ValueError(f"`X` and `y` must have the same number of rows, got {len(features)} and {len(labels)}.")
    if labels.any() and labels.max() < 0.5:
        warnings.warn(
            "No label of `y` reaches 0.5, from which soft labels count as present when rows are set aside, "
            f"epochs scored and thresholds chosen; the highest is {labels.max():.3g}. Rescale them, or pass "
            "`validation`.",
            stacklevel=5,
        )
    return TrainingData(features, torch.from_numpy(labels.astype(np.float32)), _views(estimator))


def read_features(estimator: Any, X: Any) -> Tensor:
    """Check features `(n, D)` that are passed to a fitted estimator."""
    return _read_features(estimator, X, reset=False)


def _read_features(estimator: Any, X: Any, **settings: Any) -> Tensor:
    """Check features, and that their NaN are those of missing views."""
    has_views = estimator.views is not None
    try:
        features = validate_data(
            estimator, X, dtype=np.float32, ensure_all_finite="allow-nan" if has_views else True, **settings
        )
    except ValueError as error:
        if has_views or "contains NaN" not in str(error):
            raise
        raise ValueError(
            f"{str(error).splitlines()[0]} Where rows lack a text or another view, pass `views=`, or leave these rows "
            "out if there is only one view; otherwise fill the gaps."
        ) from error
    # torch warns about arrays that are not writeable.
    rows = torch.from_numpy(features if features.flags.writeable else features.copy())
    if has_views:
        check_missing_views(rows, read_views(estimator.views, rows.shape[1]))
    return rows


def _views(estimator: Any) -> dict[str, slice] | None:
    return None if estimator.views is None else read_views(estimator.views, estimator.n_features_in_)
