"""Calibration of any scikit-learn multi-label classifier on out-of-fold scores."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from mlmetric._docstrings import inherit_docs
from mlmetric._label_columns import LabelsOrNames
from mlmetric.decisions._label_calibrator import LabelCalibrator, Method, check_calibration_settings
from mlmetric.decisions._label_scores import find_response_method
from mlmetric.decisions._out_of_fold_classifier import OutOfFoldClassifier, estimator_has
from mlmetric.decisions._scaling import FloatArray


@inherit_docs(LabelCalibrator)
class MultiLabelCalibratedClassifier(OutOfFoldClassifier):
    """Calibrate the probabilities of a multi-label classifier on out-of-fold scores.

    `fit` computes the scores of each training row by a copy of the classifier that is fitted on the other folds, fits a
    [`LabelCalibrator`][mlmetric.decisions.LabelCalibrator] on these scores, and fits the classifier on all rows. This
    is the procedure of scikit-learn's `CalibratedClassifierCV(ensemble=False)`, which rejects label matrices. The
    scores are the classifier's `decision_function` or, if it has none, the logits of its `predict_proba`. Out-of-fold
    scores of a label are excluded if none or all of the rows of the other folds have the label.

    Args:
        estimator: Any classifier of scikit-learn that accepts a label matrix, or a pipeline that ends with one, such as
            `OneVsRestClassifier(LogisticRegression())`, `RandomForestClassifier()` or `MetricClassifier()`.
        cv: Number of folds, which are stratified by all labels; a splitter of scikit-learn, or an iterable of pairs of
            training and test indices, with each row in one test fold; or `"prefit"` for an estimator that is already
            fitted. It then scores all rows passed to `fit`, which must not be rows that it was fitted on.
        n_jobs: Number of folds that are fitted at the same time; None means 1, except within a
            `joblib.parallel_config`.
        random_state: Seed or `numpy.random.RandomState` that shuffles the rows before they are divided into `cv` folds;
            with None, the folds depend only on the labels and the order of the rows. Ignored unless `cv` is a number.

    Attributes:
        estimator_: The classifier, fitted on all rows.
        calibrator_: The fitted `LabelCalibrator`.
        oof_scores_: Out-of-fold scores of the training rows, float64, shape `(N, L)`.
            `calibrator_.transform(oof_scores_)` are their calibrated probabilities, on which
            [`best_thresholds`][mlmetric.metrics.best_thresholds] can choose thresholds.
        positives_: Number of rows with each label, int64, shape `(L,)`.
        classes_: Sorted label names, or column names of a data frame, shape `(L,)`. For labels without names, or fewer
            than three labels, `[0, 1]` for each label, shape `(L, 2)`.
        n_features_in_: Number of features, if `estimator_` has this attribute.
        feature_names_in_: Names of the features, if `estimator_` has this attribute.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.decisions import MultiLabelCalibratedClassifier
        >>> from mlmetric.metrics import log_loss
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from sklearn.multiclass import OneVsRestClassifier
        >>> rng = np.random.default_rng(0)
        >>> X = np.repeat(rng.normal(size=(400, 3)), 5, axis=1)  # repeated features make naive Bayes too confident
        >>> y = X[:, ::5] + rng.normal(size=(400, 3)) > 0.5
        >>> base = OneVsRestClassifier(GaussianNB())
        >>> calibrated = MultiLabelCalibratedClassifier(base, method="platt").fit(X[:200], y[:200])
        >>> before, after = (model.predict_proba(X[200:]) for model in (calibrated.estimator_, calibrated))
        >>> bool(log_loss(after, y[200:]) < log_loss(before, y[200:]))
        True
    """

    def __init__(
        self,
        estimator: Any,
        *,
        method: Method = "platt",
        min_positives: int = 10,
        clip: float = 1e-6,
        cv: Any = 5,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.min_positives = min_positives
        self.clip = clip
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: LabelsOrNames, **params: Any) -> Self:
        """Fit the classifier and the calibration.

        Args:
            X: Features as `estimator` accepts them, n rows.
            y: Labels, 0 or 1, shape `(n, L)`: an array, a tensor, a list of rows, a scipy sparse matrix or a data
                frame; or for each row a list of label names. `estimator` receives an int64 array `(n, L)`.
            **params: Arguments of `fit` of the classifier, such as `sample_weight`; those with a value for each row are
                divided into the folds. With scikit-learn's metadata routing enabled, they must be requested.

        Returns:
            The classifier itself.

        Raises:
            TypeError: If `y` contains neither numbers nor names.
            ValueError: If `y` is not a label matrix of entries 0 and 1, has no positives or no negatives, a row is not
                in one test fold, or an argument is invalid.
            AttributeError: If `estimator` has neither `decision_function` nor `predict_proba`.
        """
        check_calibration_settings(self)
        has_decisions = hasattr(self.estimator, "decision_function")
        method = "decision_function" if has_decisions else find_response_method(self.estimator, "predict_proba")
        folds, num_rows = self._fit_estimator(X, y, method, params)
        rows = np.concatenate([fold.rows for fold in folds])
        order = rows.argsort()
        if not np.array_equal(rows[order], np.arange(num_rows)):
            raise ValueError("`cv` must have each row in one test fold, but some rows are in none, or in several.")
        scores, labels, learned = (
            np.concatenate([getattr(fold, name) for fold in folds])[order] for name in ("scores", "labels", "learned")
        )
        self.oof_scores_ = scores.astype(np.float64)
        self.calibrator_ = LabelCalibrator(
            self.method,
            scale="logits" if has_decisions else "probabilities",
            min_positives=self.min_positives,
            clip=self.clip,
        ).fit(self.oof_scores_, labels, learned)
        return self

    @available_if(estimator_has("decision_function", "predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> FloatArray:
        """Compute the calibrated probabilities of the labels.

        Args:
            X: Features, n rows.

        Returns:
            float64, shape `(n, L)`.
        """
        check_is_fitted(self, "calibrator_")
        return self.calibrator_.transform(self._scores(X, self._method))

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Predict the labels: those with a calibrated probability above 0.5, as scikit-learn does.

        Args:
            X: Features, n rows.

        Returns:
            int64, 0 or 1, shape `(n, L)`.
        """
        probabilities: FloatArray = self.predict_proba(X)
        return (probabilities > 0.5).astype(np.int64)
