"""Calibration of any multi-label classifier of scikit-learn on out-of-fold scores."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from mlmetric._docstrings import inherit_docs
from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions._label_calibrator import LabelCalibrator, Method, check_calibration_settings
from mlmetric.decisions._scaling import FloatArray
from mlmetric.labels import LabelsLike, label_array


def _returns_scores(classifier: Any) -> bool:
    """Whether the wrapped classifier has `decision_function` or `predict_proba`."""
    return any(hasattr(classifier.estimator, name) for name in ("decision_function", "predict_proba"))


@inherit_docs(LabelCalibrator)
class MultiLabelCalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Calibrate the probabilities of a multi-label classifier on out-of-fold scores.

    `fit` computes the scores of each training row by a copy of the classifier that is fitted on the other folds, fits a
    [`LabelCalibrator`][mlmetric.decisions.LabelCalibrator] on these scores, and fits the classifier on all rows. It
    does what `CalibratedClassifierCV(ensemble=False)` of scikit-learn does, which rejects label matrices. The scores
    are the classifier's `decision_function`, or if it has none the logits of `predict_proba`. Out-of-fold scores of a
    label that is present in none or all of the rows of the other folds are excluded.

    Args:
        estimator: Any classifier of scikit-learn that accepts a label matrix, or a pipeline that ends with one, such as
            `OneVsRestClassifier(LogisticRegression())`, `RandomForestClassifier()` or `MetricClassifier()`.
        cv: Number of folds, in which the proportion of each label is preserved; or a splitter of scikit-learn whose
            test folds contain each row once.
        n_jobs: Number of processes for the folds, as in scikit-learn.

    Attributes:
        estimator_: The classifier, fitted on all rows.
        calibrator_: The fitted `LabelCalibrator`.
        oof_scores_: Out-of-fold scores of the training rows, float64, shape `(N, L)`.
            `calibrator_.transform(oof_scores_)` are their calibrated probabilities, on which
            [`best_thresholds`][mlmetric.metrics.best_thresholds] can choose thresholds.
        classes_: `[0, 1]` for each label, shape `(L, 2)`.
        n_features_in_, feature_names_in_: Those of `estimator_`, if it has them.

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
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.min_positives = min_positives
        self.clip = clip
        self.cv = cv
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: LabelsLike) -> Self:
        """Fit the classifier and the calibration.

        Args:
            X: Features, shape `(N, D)`, of any kind that the classifier accepts.
            y: Labels, 0 or 1, shape `(N, L)` with at least two labels: an array, a tensor, a list of rows, a scipy
                sparse matrix or a data frame.

        Returns:
            The fitted classifier.

        Raises:
            TypeError: If `y` does not contain numbers, or the classifier has neither `decision_function` nor
                `predict_proba`.
            ValueError: If `y` is not a matrix of 0 and 1 with at least two labels, has no positives or no negatives, or
                a parameter is out of range.
        """
        check_calibration_settings(self)
        if not _returns_scores(self):
            raise TypeError(
                "`estimator` must have the method `decision_function` or `predict_proba`, got "
                f"{type(self.estimator).__name__}."
            )
        X, labels = indexable(X, _read_labels(self, y))
        splitter = MultiLabelStratifiedKFold(self.cv) if isinstance(self.cv, int) else check_cv(self.cv)
        folds = list(splitter.split(X, labels))
        parts = Parallel(n_jobs=self.n_jobs)(delayed(_fold_scores)(self.estimator, X, labels, *fold) for fold in folds)
        self.oof_scores_ = np.full(labels.shape, np.nan)
        learned = np.zeros(labels.shape, dtype=bool)
        for (train, test), scores in zip(folds, parts, strict=True):
            self.oof_scores_[test] = scores
            learned[test] = labels[train].any(axis=0) & ~labels[train].all(axis=0)
        if np.isnan(self.oof_scores_).any():
            raise ValueError("`cv` must have each row in one test fold, but some rows are in none.")
        self.calibrator_ = LabelCalibrator(
            self.method,
            scale="logits" if hasattr(self.estimator, "decision_function") else "probabilities",
            min_positives=self.min_positives,
            clip=self.clip,
        ).fit(self.oof_scores_, labels, learned)
        self.estimator_ = clone(self.estimator).fit(X, labels)
        self.classes_ = np.tile([0, 1], (labels.shape[1], 1))
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    @available_if(_returns_scores)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> FloatArray:
        """Compute the calibrated probabilities of the labels.

        Args:
            X: Features, shape `(n, D)`.

        Returns:
            float64, shape `(n, L)`.
        """
        check_is_fitted(self)
        return self.calibrator_.transform(_scores(self.estimator_, X))

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Predict the labels: those with a calibrated probability of at least 0.5.

        Args:
            X: Features, shape `(n, D)`.

        Returns:
            int64, 0 or 1, shape `(n, L)`.
        """
        probabilities: FloatArray = self.predict_proba(X)
        return (probabilities >= 0.5).astype(np.int64)

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.single_output = False
        tags.target_tags.two_d_labels = True
        tags.input_tags = inner.input_tags
        return tags


def _read_labels(estimator: Any, y: LabelsLike) -> npt.NDArray[np.int64]:
    """Return the labels as an int64 matrix of 0 and 1."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None: pass labels "
            "of shape (N, L)."
        )
    labels = label_array(y, name="y")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("`y` must contain only 0 and 1; convert soft labels with a comparison such as `y >= 0.5`.")
    if labels.shape[1] < 2:
        raise ValueError(
            f"`y` must have at least two labels, got {labels.shape[1]}: for one label use "
            "`sklearn.calibration.CalibratedClassifierCV`."
        )
    return labels.astype(np.int64)


def _fold_scores(
    estimator: Any, X: Any, labels: npt.NDArray[np.int64], train: npt.NDArray[np.intp], test: npt.NDArray[np.intp]
) -> FloatArray:
    """Fit a copy of a classifier on some rows and return the scores of others."""
    fitted = clone(estimator).fit(_safe_indexing(X, train), labels[train])
    return _scores(fitted, _safe_indexing(X, test))


def _scores(classifier: Any, X: Any) -> FloatArray:
    """Return the scores of a fitted classifier, `(n, L)`: its decisions, or probabilities if it has none.

    Forests, nearest neighbours and `MultiOutputClassifier` return for each label the probabilities of its classes, a
    single column for a label whose training rows all had the same value.
    """
    if hasattr(classifier, "decision_function"):
        return np.asarray(classifier.decision_function(X), dtype=np.float64)
    scores = classifier.predict_proba(X)
    if isinstance(scores, list):
        is_present = [np.asarray(classes) == 1 for classes in classifier.classes_]
        scores = np.column_stack([values[:, here].sum(axis=1) for values, here in zip(scores, is_present, strict=True)])
    return np.asarray(scores, dtype=np.float64)
