"""A classifier with decision thresholds that are chosen on out-of-fold scores."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from mlmetric._label_columns import LabelsOrNames
from mlmetric.decisions._fold_scores import deviation
from mlmetric.decisions._label_scores import find_response_method
from mlmetric.decisions._out_of_fold_classifier import OutOfFoldClassifier, estimator_has
from mlmetric.decisions._threshold_table import ThresholdTable
from mlmetric.metrics import best_thresholds
from mlmetric.metrics._threshold_rules import ThresholdRule
from mlmetric.metrics._threshold_search import Average, check_threshold_arguments

FloatArray = npt.NDArray[np.float64]


class MultiLabelThresholdClassifier(OutOfFoldClassifier):
    """Choose the decision thresholds of a multi-label classifier on scores of rows that it was not fitted on.

    A clone of the classifier is fitted on the training rows of each fold and scores the test rows of the fold. The
    thresholds are chosen on the scores of all folds together, without the scores of a label that none or all of the
    training rows of the fold have. The classifier is then fitted on all rows. It is the counterpart of
    `sklearn.model_selection.TunedThresholdClassifierCV`, which supports a single label.

    Args:
        estimator: A multi-label classifier of scikit-learn with `predict_proba` or `decision_function`, a pipeline of
            imbalanced-learn, or an estimator of this library. `predict_proba` may return an array `(n, L)`, or for each
            label an array `(n, classes)`.
        metric: What to maximise: `"f1"`; a rule of this package, `FBeta`, `MinRecall`, `MinPrecision` or
            `ExpectedCost`; a [ThresholdRule][mlmetric.decisions.ThresholdRule] of your own; or a rule that decides on
            whole rows, such as `TopK` or `PredictedCount`: any estimator with `fit(scores, y)` and `predict(scores)`,
            of which a clone is fitted. With such a rule, the arguments `average` to `fallback` must have their
            defaults.
        average: `"macro"` to maximise the mean F1 of the labels, `"micro"` to maximise the F1 of all entries. See
            [best_thresholds][mlmetric.metrics.best_thresholds], also for the next arguments.
        per_label: Whether to choose a threshold for each label; False for one common threshold.
        shrinkage: How far the thresholds of rare labels are shrunk towards the common threshold, as a number of
            positives.
        max_predicted: Largest number of predictions of a label on the out-of-fold rows, as a multiple of its positives.
        fallback: The threshold of labels without positives; None uses the common threshold.
        cv: Number of folds, which are stratified by all labels; a splitter of scikit-learn; an iterable of pairs of
            training and test indices; or `"prefit"` for an estimator that is already fitted. It then scores all rows
            passed to `fit`, which must not be rows that it was fitted on.
        response_method: The method that computes the scores: `"predict_proba"`, `"decision_function"`, or `"auto"` for
            the first of these that the estimator has.
        n_jobs: Number of folds that are fitted at the same time; None means 1, except within a
            `joblib.parallel_config`.
        random_state: Seed or `numpy.random.RandomState` that shuffles the rows before they are divided into `cv` folds;
            with None, the folds depend only on the labels and the order of the rows. Ignored unless `cv` is a number.

    Attributes:
        estimator_: The classifier, fitted on all rows.
        thresholds_: Lowest score that is predicted, float64, shape `(L,)`, all the same with `per_label=False`;
            infinity for labels that are never predicted. With a rule for rows, this attribute and the next two do not
            exist.
        fold_thresholds_: Thresholds chosen on each fold alone, float64, shape `(number of folds, L)`; NaN for labels
            without positives in the fold, except with `per_label=False`.
        threshold_spread_: Standard deviation of the thresholds of the folds, float64, shape `(L,)`; NaN for labels with
            fewer than two finite ones. A threshold of a fold is chosen on fewer rows than `thresholds_`, so that the
            spread is larger than the standard error of `thresholds_`.
        rule_: The rule; a rule for rows is fitted on the out-of-fold scores.
        positives_: Number of rows with each label, int64, shape `(L,)`.
        classes_: Sorted label names, or column names of a data frame, shape `(L,)`. For labels without names, or fewer
            than three labels, `[0, 1]` for each label, shape `(L, 2)`.
        n_features_in_: Number of features, if `estimator_` has this attribute.
        feature_names_in_: Names of the features, if `estimator_` has this attribute.

    Examples:
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.multiclass import OneVsRestClassifier
        >>> from mlmetric.decisions import MinRecall, MultiLabelThresholdClassifier
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(200, 4))
        >>> y = (X[:, :3] + rng.normal(size=(200, 3)) > [0, 1, 2]).astype(int)
        >>> model = MultiLabelThresholdClassifier(OneVsRestClassifier(LogisticRegression())).fit(X, y)
        >>> print(model.threshold_table())
        | label | positives | threshold |   spread |
        | ----- | --------: | --------: | -------: |
        | 2     |        17 |    0.1646 |   0.1335 |
        | 1     |        35 |     0.243 |   0.1771 |
        | 0     |       103 |    0.4097 |  0.09029 |
        >>> model.set_params(metric=MinRecall(0.9)).fit(X, y).thresholds_.round(2)
        array([0.27, 0.1 , 0.06])

    Source:
        Thresholds chosen for each label by cross-validation: Fan, Lin, "A study on threshold selection for multi-label
        classification", National Taiwan University, 2007. Here the scores of all folds are searched together, since a
        single fold has few positives of a rare label.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        metric: Any = "f1",
        average: Average = "macro",
        per_label: bool = True,
        shrinkage: float = 0.0,
        max_predicted: float = math.inf,
        fallback: float | None = None,
        cv: Any = 5,
        response_method: Literal["auto", "predict_proba", "decision_function"] = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.metric = metric
        self.average = average
        self.per_label = per_label
        self.shrinkage = shrinkage
        self.max_predicted = max_predicted
        self.fallback = fallback
        self.cv = cv
        self.response_method = response_method
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: LabelsOrNames, **params: Any) -> Self:
        """Choose the thresholds on out-of-fold scores, and fit the classifier on all rows.

        Args:
            X: Features as `estimator` accepts them, n rows.
            y: Labels, 0 or 1, shape `(n, L)`: an array, a tensor, a list of rows, a scipy sparse matrix or a data
                frame; or for each row a list of label names. `estimator` receives an int64 array `(n, L)`.
            **params: Arguments of `fit` of the classifier, such as `sample_weight`; those with a value for each row are
                divided into the folds. With scikit-learn's metadata routing enabled, they must be requested.

        Returns:
            The classifier itself.

        Raises:
            TypeError: If `metric` is not a rule.
            ValueError: If `y` is not a label matrix of entries 0 and 1, a row of `cv` is out of range, or an argument
                is invalid.
            AttributeError: If `estimator` has neither `predict_proba` nor `decision_function`.
        """
        rule = self._check_rule()
        folds, _ = self._fit_estimator(X, y, find_response_method(self.estimator, self.response_method), params)
        scores, targets, learned = (
            np.concatenate([getattr(fold, name) for fold in folds]) for name in ("scores", "labels", "learned")
        )
        for name in ("thresholds_", "fold_thresholds_", "threshold_spread_"):  # of an earlier fit with another rule
            self.__dict__.pop(name, None)
        if isinstance(rule, ThresholdRule):
            self.rule_: Any = rule
            self.thresholds_ = self._search(scores, targets, learned, self.fallback)
            with warnings.catch_warnings():  # `thresholds_` decides, and has warned
                warnings.simplefilter("ignore", UserWarning)
                of_folds = [self._search(fold.scores, fold.labels, fold.learned, math.nan) for fold in folds]
            self.fold_thresholds_ = np.stack(of_folds)
            self.threshold_spread_ = deviation(self.fold_thresholds_)
        else:
            self.rule_ = clone(rule).fit(scores, targets)
        return self

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Predict the labels whose score is at least their threshold, or which the rule for rows chooses.

        Args:
            X: Features, n rows.

        Returns:
            int64, 0 or 1, shape `(n, L)`, columns as in `y`, or as `classes_` for label names.
        """
        check_is_fitted(self, "rule_")
        scores = self._scores(X, self._method)
        decides_on_rows = not isinstance(self.rule_, ThresholdRule)
        predicted = self.rule_.predict(scores) if decides_on_rows else scores >= self.thresholds_
        return np.asarray(predicted).astype(np.int64)

    @available_if(estimator_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Compute the probabilities of the labels.

        Args:
            X: Features, n rows.

        Returns:
            Floating point, shape `(n, L)`, even if the classifier returns an array for each label.
        """
        check_is_fitted(self, "rule_")
        return self._scores(X, "predict_proba")

    @available_if(estimator_has("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> npt.NDArray[Any]:
        """Compute the scores of the labels.

        Args:
            X: Features, n rows.

        Returns:
            Floating point, shape `(n, L)`.
        """
        check_is_fitted(self, "rule_")
        return self._scores(X, "decision_function")

    def threshold_table(self) -> ThresholdTable:
        """Return a table with the number of positives, the threshold and its spread for each label.

        Returns:
            A table that `print` shows, with the rarest labels first.

        Raises:
            AttributeError: If the rule has no thresholds.
        """
        check_is_fitted(self, "rule_")
        if not isinstance(self.rule_, ThresholdRule):
            raise AttributeError(f"{self.rule_!r:.80} has no thresholds: it decides on whole rows.")
        names = self._label_columns.names or list(range(self._label_columns.number))
        return ThresholdTable(names, self.positives_, self.thresholds_, self.threshold_spread_)

    def _check_rule(self) -> Any:
        if isinstance(self.metric, str | ThresholdRule) or not hasattr(self.metric, "predict"):
            return check_threshold_arguments(
                self.metric, self.average, self.per_label, self.shrinkage, self.max_predicted
            )
        arguments = {
            "average": "macro", "per_label": True, "shrinkage": 0.0, "max_predicted": math.inf, "fallback": None
        }  # fmt: skip
        for name, default in arguments.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must be {default!r} with a `metric` that decides on whole rows, got "
                    f"{getattr(self, name)!r}."
                )
        return self.metric

    def _search(
        self,
        scores: npt.NDArray[Any],
        target: npt.NDArray[np.int64],
        learned: npt.NDArray[np.bool_],
        fallback: float | None,
    ) -> FloatArray:
        thresholds = best_thresholds(
            scores,
            target,
            metric=self.metric,
            average=self.average,
            per_label=self.per_label,
            shrinkage=self.shrinkage,
            max_predicted=self.max_predicted,
            fallback=fallback,
            mask=None if learned.all() else learned,
        )
        return np.broadcast_to(thresholds.numpy(), target.shape[1]).copy()
