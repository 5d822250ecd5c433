"""Rules that choose how many labels each row gets."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from mlmetric.labels import LabelsLike, label_array
from mlmetric.metrics._inputs import check_predictions, decide

IntArray = npt.NDArray[np.int64]


class TopK(BaseEstimator):
    """Predict the `k` labels with the highest scores in each row; among tied labels, the first columns are chosen.

    Args:
        k: Number of labels of each row, from 1 to the number of labels.

    Attributes:
        n_features_in_: Number of labels, L.

    Examples:
        >>> from mlmetric.decisions import TopK
        >>> scores, y = [[0.9, 0.1, 0.6], [0.2, 0.3, 0.1]], [[1, 0, 0], [0, 1, 1]]
        >>> TopK(2).fit(scores, y).predict(scores)
        array([[1, 0, 1],
               [1, 1, 0]])
    """

    def __init__(self, k: int = 1) -> None:
        self.k = k

    def fit(self, scores: npt.ArrayLike, y: LabelsLike | None = None) -> Self:
        """Check `k`.

        Args:
            scores: Shape `(n, L)`.
            y: Not used.

        Returns:
            The rule itself.

        Raises:
            ValueError: If `k` is not an integer from 1 to L.
        """
        values: npt.NDArray[Any] = validate_data(self, scores, ensure_all_finite=False)
        num_labels = values.shape[1]
        if not (isinstance(self.k, int | np.integer) and 1 <= self.k <= num_labels):
            raise ValueError(f"`k` must be an integer from 1 to {num_labels}, the number of labels, got {self.k!r}.")
        return self

    def predict(self, scores: npt.ArrayLike) -> IntArray:
        """Predict the labels.

        Args:
            scores: Shape `(n, L)`.

        Returns:
            int64, 0 or 1, shape `(n, L)`.
        """
        check_is_fitted(self)
        values: npt.NDArray[Any] = validate_data(self, scores, reset=False, ensure_all_finite=False)
        predictions = check_predictions(values, np.zeros(values.shape, bool))
        return decide(predictions, None, int(self.k)).numpy().astype(np.int64)


class PredictedCount(BaseEstimator):
    """Predict the labels with the highest scores in each row, as many as an estimator predicts.

    The target of the estimator is the number of labels of each row. Its features are the highest scores of the row in
    descending order, one more than the largest number of labels of a training row.

    Args:
        estimator: A scikit-learn classifier or regressor of the number of labels; predictions are rounded. None uses a
            logistic regression with a class for each number, on standardised scores.

    Attributes:
        estimator_: The fitted estimator.
        max_count_: Largest number of labels of a training row; no row gets more.
        n_features_in_: Number of labels, L.

    Examples:
        >>> from mlmetric.decisions import PredictedCount
        >>> scores, y = [[0.9, 0.1], [0.2, 0.9], [0.8, 0.7], [0.6, 0.9]], [[1, 0], [0, 1], [1, 1], [1, 1]]
        >>> PredictedCount().fit(scores, y).predict(scores)
        array([[1, 0],
               [0, 1],
               [1, 1],
               [1, 1]])

    Source:
        Tang, Rajan, Narayanan, "Large scale multi-label classification via MetaLabeler", WWW 2009, with their
        "score-based" features in descending order. The limit on the number of scores is our own.
    """

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, scores: npt.ArrayLike, y: LabelsLike) -> Self:
        """Fit the estimator of the number of labels.

        Args:
            scores: Finite scores, shape `(n, L)`.
            y: Labels, 0 or 1, shape `(n, L)`.

        Returns:
            The rule itself.

        Raises:
            ValueError: If a score is not finite, or the shapes differ.
        """
        values = self._scores(scores, reset=True)
        labels = label_array(y, name="y", used_by=f"`{type(self).__name__}`")
        if labels.shape != values.shape:
            raise ValueError(f"`scores` and `y` must have the same shape, got {values.shape} and {labels.shape}.")
        counts = np.count_nonzero(labels, axis=1)
        self.max_count_ = int(counts.max())
        estimator = self.estimator
        if estimator is None:
            if len(np.unique(counts)) == 1:  # a logistic regression requires two classes
                estimator = DummyClassifier()
            else:
                estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self.estimator_ = clone(estimator).fit(self._features(values), counts)
        return self

    def predict(self, scores: npt.ArrayLike) -> IntArray:
        """Predict the labels.

        Args:
            scores: Finite scores, shape `(n, L)`.

        Returns:
            int64, 0 or 1, shape `(n, L)`.
        """
        check_is_fitted(self)
        values = self._scores(scores, reset=False)
        predicted = np.asarray(self.estimator_.predict(self._features(values)), dtype=np.float64)
        counts = np.rint(predicted).clip(0, self.max_count_).astype(np.int64)
        order = np.argsort(-values, axis=1, kind="stable")
        chosen = np.zeros(values.shape, dtype=np.int64)
        np.put_along_axis(chosen, order, (np.arange(values.shape[1]) < counts[:, None]).astype(np.int64), axis=1)
        return chosen

    def _scores(self, scores: npt.ArrayLike, *, reset: bool) -> npt.NDArray[Any]:
        """Return the scores as floating-point numbers, which have negatives, unlike unsigned integers."""
        values: npt.NDArray[Any] = validate_data(self, scores, reset=reset)
        return values if values.dtype.kind == "f" else values.astype(np.float64)

    def _features(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        highest = min(self.max_count_ + 1, scores.shape[1])
        return np.sort(scores, axis=1)[:, ::-1][:, :highest]
