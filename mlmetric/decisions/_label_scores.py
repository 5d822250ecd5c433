"""Scores of the labels from any scikit-learn multi-label classifier, in one format."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RESPONSE_METHODS = ("predict_proba", "decision_function")


def find_response_method(estimator: Any, response_method: str) -> str:
    """Return the name of the method that scores labels.

    Raises:
        ValueError: If `response_method` is unknown.
        AttributeError: If the estimator lacks the method.
    """
    if response_method not in ("auto", *RESPONSE_METHODS):
        raise ValueError(
            f'`response_method` must be "auto", "predict_proba" or "decision_function", got {response_method!r}.'
        )
    names = RESPONSE_METHODS if response_method == "auto" else (response_method,)
    for name in names:
        if hasattr(estimator, name):
            return name
    raise AttributeError(f"`estimator` must have {' or '.join(f'`{name}`' for name in names)}, got {estimator!r:.80}.")


def label_scores(estimator: Any, X: Any, method: str, num_labels: int) -> npt.NDArray[Any]:
    """Return the scores of a fitted classifier.

    Args:
        estimator: A fitted classifier whose method returns an array `(n, L)`, for each label an array `(n, classes)`,
            or for a single label an array `(n,)` or `(n, 2)`.
        X: Features.
        method: `"predict_proba"` or `"decision_function"`.
        num_labels: L.

    Returns:
        Floating point, shape `(n, L)`.

    Raises:
        ValueError: If the scores are none of these, or a label has classes other than 0 and 1.
    """
    raw = getattr(estimator, method)(X)
    if isinstance(raw, list | tuple):
        if len(raw) != num_labels:
            raise ValueError(
                f"`{method}` of `estimator` must return an array for each of the {num_labels} labels, got {len(raw)}."
            )
        classes = getattr(estimator, "classes_", None)
        if classes is None or len(classes) != num_labels:
            classes = [None] * num_labels
        return np.column_stack([_of_class_one(np.asarray(of), cls) for of, cls in zip(raw, classes, strict=True)])
    scores = np.asarray(raw)
    if num_labels == 1 and (scores.ndim == 1 or scores.shape[1] == 2):
        return (scores if scores.ndim == 1 else scores[:, 1]).reshape(-1, 1)
    if num_labels == 1 and scores.shape[1] == 1 and np.array_equal(getattr(estimator, "classes_", ()), [0]):
        return np.zeros_like(scores)  # the only class in `fit` was 0
    if scores.ndim != 2 or scores.shape[1] != num_labels:
        raise ValueError(
            f"`{method}` of `estimator` must return shape (n, {num_labels}), a column for each label, or an array for "
            f"each label, got shape {scores.shape}."
        )
    return scores


def _of_class_one(scores: npt.NDArray[Any], classes: Any) -> npt.NDArray[Any]:
    """Return the scores of class 1 of a label: 0 or 1 for all rows if the label had one class in `fit`."""
    if scores.ndim == 1:
        return scores
    if classes is None:
        classes = [0, 1]
    ids = np.asarray(classes).astype(np.float64)
    if len(ids) != scores.shape[1] or not set(ids.tolist()) <= {0.0, 1.0}:
        raise ValueError(
            f"Each label of `estimator` must have the classes 0 and 1, got {list(classes)} and scores of "
            f"{scores.shape[1]} classes."
        )
    present = np.flatnonzero(ids == 1)
    return scores[:, present[0]] if len(present) else np.zeros(len(scores), scores.dtype)
