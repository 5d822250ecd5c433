"""Base class of the estimators that fit a classifier and decide by its out-of-fold scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils import get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, _routing_enabled, process_routing
from sklearn.utils.validation import check_is_fitted

from mlmetric._label_columns import LabelsOrNames, classes_of, read_hard_labels, read_labels
from mlmetric.decisions._fold_scores import FoldScores, out_of_fold_scores, scores_of
from mlmetric.decisions._label_scores import label_scores


def estimator_has(*names: str) -> Callable[[Any], bool]:
    """Return a check that the wrapped classifier has one of these methods; it raises AttributeError otherwise."""

    def check(wrapper: Any) -> bool:
        estimator = getattr(wrapper, "estimator_", wrapper.estimator)
        if not any(hasattr(estimator, name) for name in names):
            getattr(estimator, names[-1])  # raises AttributeError
        return True

    return check


class OutOfFoldClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit a multi-label classifier on all rows, after clones of it have scored the rows they were not fitted on."""

    estimator: Any
    cv: Any
    n_jobs: int | None
    random_state: int | np.random.RandomState | None

    def _fit_estimator(
        self, X: Any, y: LabelsOrNames, method: str, params: dict[str, Any]
    ) -> tuple[list[FoldScores], int]:
        """Set `estimator_`, `classes_`, `positives_` and the attributes of features.

        Args:
            X: Features, n rows.
            y: Labels or label names.
            method: Method of the classifier that returns the scores.
            params: Arguments of its `fit`.

        Returns:
            The out-of-fold scores, and n.
        """
        labels, columns = read_hard_labels(y, estimator=self)
        X, labels = indexable(X, labels)
        fit_params = process_routing(self, "fit", **params).estimator.fit if _routing_enabled() else params
        self._label_columns, self._method, self.classes_ = columns, method, classes_of(columns)
        self.positives_ = labels.sum(axis=0)
        if isinstance(self.cv, str) and self.cv == "prefit":
            self.estimator_ = self.estimator
            folds = [scores_of(self.estimator, X, labels, method)]
        else:
            folds = out_of_fold_scores(
                self.estimator,
                X,
                labels,
                self.cv,
                method=method,
                fit_params=fit_params,
                n_jobs=self.n_jobs,
                random_state=self.random_state,
            )
            self.estimator_ = clone(self.estimator).fit(X, labels, **fit_params)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return folds, len(labels)

    def _scores(self, X: Any, method: str) -> npt.NDArray[Any]:
        return label_scores(self.estimator_, X, method, self._label_columns.number)

    def score(self, X: Any, y: LabelsOrNames, sample_weight: npt.ArrayLike | None = None) -> float:
        """Compute the subset accuracy of `predict`: the share of the rows whose labels are all predicted correctly.

        Args:
            X: Features, n rows.
            y: Labels, 0 or 1, of any kind that `fit` accepts.
            sample_weight: Weight of each row, shape `(n,)`.

        Returns:
            The accuracy, in [0, 1].
        """
        check_is_fitted(self, "estimator_")
        predicted = self.predict(X)
        labels, _ = read_labels(y, columns=self._label_columns)
        return float(accuracy_score(labels, predicted, sample_weight=sample_weight))

    def get_metadata_routing(self) -> MetadataRouter:
        """Return how arguments of `fit` are passed to the classifier; see scikit-learn's guide to metadata routing."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=self).add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.target_tags.required = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        return tags
