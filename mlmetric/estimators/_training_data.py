"""Read the data that the estimators are fitted on: features and labels."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from mlmetric._label_columns import classes_of, read_labels
from mlmetric._views import check_missing_views, read_views


class TrainingData(NamedTuple):
    """Rows to train on or to validate with.

    Attributes:
        features: Shape `(n, D)`, float32; NaN where a row lacks a view.
        labels: Shape `(n, L)`, float32; NaN for labels that are not annotated.
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
        """Return the rows that have a view, with the features of this view only."""
        features = self.features[:, columns]
        return TrainingData(features, self.labels).select(~features[:, 0].isnan())

    @property
    def hard(self) -> TrainingData:
        """The same rows with labels 0 and 1, or NaN: soft labels of at least 0.5 become 1."""
        hard = (self.labels >= 0.5).to(self.labels.dtype)
        return self._replace(labels=hard.masked_fill(self.labels.isnan(), torch.nan))

    @property
    def has_positive(self) -> bool:
        """Whether a row has a label."""
        return bool((self.hard.labels == 1).any())


def read_training_data(estimator: Any, X: Any, y: Any) -> TrainingData:
    """Check the arguments of `fit`, and set the number and names of the features and the classes of the estimator."""
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
    labels, estimator._label_columns = read_labels(y, allow_missing=True)
    estimator.classes_ = classes_of(estimator._label_columns)
    if labels.shape[1] == 0:
        raise ValueError("`y` must have a column for each label, got 0 columns.")
    return _to_training_data(features, labels, estimator)


def read_validation_data(estimator: Any, validation: tuple[Any, Any]) -> TrainingData:
    """Check the validation rows like the training rows; messages name the argument."""
    try:
        X, y = validation
        features = _read_features(estimator, X, reset=False)
        labels, _ = read_labels(y, columns=estimator._label_columns, allow_missing=True)
        return _to_training_data(features, labels, estimator)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`validation` must be a pair of features `X` and labels `y`: {error}") from error


def _to_training_data(features: Tensor, labels: npt.NDArray[Any], estimator: Any) -> TrainingData:
    if len(labels) != len(features):
        raise ValueError(f"`X` and `y` must have the same number of rows, got {len(features)} and {len(labels)}.")
    if labels.size and np.isnan(labels).all():
        raise ValueError("`y` must have at least one annotated label, got only NaN.")
    highest = np.nanmax(labels, initial=0)
    if 0 < highest < 0.5:
        warnings.warn(
            "No label of `y` reaches 0.5, from which soft labels count as present when rows are set aside, "
            f"epochs scored and thresholds chosen; the highest is {highest:.3g}. Rescale them, or pass "
            "`validation`.",
            stacklevel=5,
        )
    return TrainingData(features, torch.from_numpy(labels.astype(np.float32)), _views(estimator))


def read_features(estimator: Any, X: Any) -> Tensor:
    """Check features `(n, D)` that are passed to a fitted estimator."""
    return _read_features(estimator, X, reset=False)


def _read_features(estimator: Any, X: Any, **settings: Any) -> Tensor:
    """Check features, and that NaN occur only in missing views."""
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
