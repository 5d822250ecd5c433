"""Scores of rows that a classifier was not fitted on, and how thresholds vary over folds."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions._label_scores import label_scores


class FoldScores(NamedTuple):
    """The test rows of a fold.

    Attributes:
        scores: Scores of the labels, shape `(n, L)`.
        labels: Labels of the rows, shape `(n, L)`.
        rows: Indices of the rows, shape `(n,)`.
        learned: Whether the training rows of the fold had both values of the label, shape `(n, L)`.
    """

    scores: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.intp]
    learned: npt.NDArray[np.bool_]


def out_of_fold_scores(
    estimator: Any,
    X: Any,
    labels: npt.NDArray[np.int64],
    cv: Any,
    *,
    method: str,
    fit_params: dict[str, Any],
    n_jobs: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> list[FoldScores]:
    """Fit a clone of a classifier on the training rows of each fold, and score the test rows.

    Args:
        estimator: A multi-label classifier.
        X: Features, n rows.
        labels: Shape `(n, L)`.
        cv: Number of folds, a splitter, or an iterable of pairs of training and test indices.
        method: Method of the classifier that returns the scores.
        fit_params: Arguments of `fit`; those with n values are divided into the folds.
        n_jobs: Number of folds that are fitted at the same time.
        random_state: Shuffles the rows before they are divided into `cv` folds; None for no shuffle.
    """
    cv = 5 if cv is None else cv
    if isinstance(cv, Integral):
        cv = MultiLabelStratifiedKFold(int(cv), shuffle=random_state is not None, random_state=random_state)
    splits = list(check_cv(cv).split(X, labels))
    scores = Parallel(n_jobs=n_jobs)(
        delayed(_fit_and_score)(clone(estimator), X, labels, train, test, method, fit_params) for train, test in splits
    )
    return [
        FoldScores(
            of_fold,
            labels[test],
            np.arange(len(labels))[test],
            np.broadcast_to(_has_both_values(labels[train]), of_fold.shape),
        )
        for of_fold, (train, test) in zip(scores, splits, strict=True)
    ]


def scores_of(estimator: Any, X: Any, labels: npt.NDArray[np.int64], method: str) -> FoldScores:
    """Return the scores of all rows by a classifier that was fitted on other rows, as one fold."""
    scores = label_scores(estimator, X, method, labels.shape[1])
    return FoldScores(scores, labels, np.arange(len(labels)), np.ones(labels.shape, dtype=bool))


def _has_both_values(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.asarray(labels.any(axis=0) & ~labels.all(axis=0))


def deviation(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard deviation of the finite numbers of each column; NaN if there are fewer than two."""
    finite = np.isfinite(thresholds)
    number = finite.sum(axis=0)
    enough = number >= 2
    centred = np.where(finite, thresholds, 0.0)
    mean = centred.sum(axis=0) / np.maximum(number, 1)
    squares = np.where(finite, np.square(centred - mean), 0.0).sum(axis=0)
    return np.where(enough, np.sqrt(squares / np.maximum(number - 1, 1)), np.nan)


def _fit_and_score(
    estimator: Any,
    X: Any,
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[Any],
    test: npt.NDArray[Any],
    method: str,
    params: dict[str, Any],
) -> npt.NDArray[Any]:
    of_train = _check_method_params(X, params, indices=train)
    estimator.fit(_safe_indexing(X, train), labels[train], **of_train)
    return label_scores(estimator, _safe_indexing(X, test), method, labels.shape[1])
