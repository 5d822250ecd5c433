"""Calibration of the scores of each label."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.validation import check_is_fitted

from mlmetric.decisions._scaling import BoolArray, FloatArray, fit_platt, fit_temperature, smoothed_targets
from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import TensorLike, check_choice, check_predictions, to_tensor

Method = Literal["temperature", "platt", "isotonic"]
Scale = Literal["logits", "probabilities"]

_CHUNK_SIZE = 2**21
"""Number of entries processed at once: 16 MB for each temporary copy."""


class LabelCalibrator(BaseEstimator):
    """Map the scores of a multi-label classifier to calibrated probabilities, with a separate function for each label.

    Fit it on scores of rows that the classifier was not trained on: scores of validation rows, or out-of-fold scores as
    computed by [`MultiLabelCalibratedClassifier`][mlmetric.decisions.MultiLabelCalibratedClassifier]. With z the logit
    of a label:

    - `"temperature"`: `sigmoid(z / T)`. One parameter; corrects confidence that is too high or too low, and keeps the
      order of the rows and the predictions at the threshold 0.5.
    - `"platt"`: `sigmoid(a z + b)`. Two parameters; also corrects frequencies that are too high or too low, as after
      resampling or with class weights. Keeps the order of the rows where a > 0.
    - `"isotonic"`: a non-decreasing step function. Corrects any monotone error, requires the most rows, and gives the
      same probability to many rows. Probabilities are at least `1 / (N- + 2)` and at most `(N+ + 1) / (N+ + 2)`, where
      N- entries are negative and N+ positive, so that none is 0 or 1.

    Labels with few positives or few negatives use the function that is fitted to the entries of all labels together.

    Args:
        method: `"temperature"`, `"platt"` or `"isotonic"`.
        scale: Scale of the scores: `"logits"`, any real numbers; or `"probabilities"`, which are converted to logits.
            It is never inferred from the values.
        min_positives: Labels with fewer positives, or fewer negatives, than this use the function of all labels. At
            least 1.
        clip: Probabilities are clipped to `[clip, 1 - clip]` before they are converted to logits, which matters for
            classifiers that return probabilities of 0 and 1, such as forests. Above 0 and below 0.5.

    Attributes:
        is_pooled_: Whether a label uses the function of all labels, bool, shape `(L,)`.
        slopes_: a, or 1 / T, of each label, float64, shape `(L,)`; not for `"isotonic"`.
        intercepts_: b of each label, float64, shape `(L,)`; not for `"isotonic"`.
        regressors_: An `IsotonicRegression` for each label; for `"isotonic"` only.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.decisions import LabelCalibrator
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(size=(1000, 2))
        >>> target = rng.random((1000, 2)) < 1 / (1 + np.exp(-logits))
        >>> calibrator = LabelCalibrator("temperature").fit(5 * logits, target)  # too confident by a factor of 5
        >>> (1 / calibrator.slopes_).round(1)
        array([5.1, 4.8])
        >>> calibrator.transform([[5.0, -5.0]]).round(2)
        array([[0.73, 0.26]])

    Source:
        Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature); Platt, "Probabilistic outputs
        for support vector machines", 1999, with its smoothed targets; Zadrozny and Elkan, "Transforming classifier
        scores into accurate multiclass probability estimates", KDD 2002 (isotonic). Deviations: labels with few
        positives or negatives use the function of all labels, and the isotonic probabilities are bounded by Platt's
        targets.
    """

    def __init__(
        self,
        method: Method = "platt",
        *,
        scale: Scale = "logits",
        min_positives: int = 10,
        clip: float = 1e-6,
    ) -> None:
        self.method = method
        self.scale = scale
        self.min_positives = min_positives
        self.clip = clip

    def fit(self, preds: TensorLike, target: LabelsLike, mask: TensorLike | None = None) -> Self:
        """Fit the functions of the labels.

        Args:
            preds: Scores, shape `(N, L)`, finite, on the scale of `scale`: a tensor, an array, a list of rows, a scipy
                sparse matrix or a data frame.
            target: True labels, shape `(N, L)`, entries 0 and 1 of any dtype, of the same kinds.
            mask: Entries to include, bool `(N, L)`; all by default. Excluded entries, such as labels that were not
                annotated, may contain any value.

        Returns:
            The fitted calibrator.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If the shapes do not match, a score is not finite or not a probability, an entry of `target` is
                neither 0 nor 1, there is no positive or no negative, or a parameter is none of the values above.
        """
        check_calibration_settings(self)
        check_choice(self.scale, "scale", Scale)
        predictions = check_predictions(preds, target, mask)
        scores, labels = predictions.preds.cpu().numpy().astype(np.float64), predictions.target.cpu().numpy()
        included = np.ones_like(labels) if predictions.mask is None else predictions.mask.cpu().numpy()
        scores = self._to_logits(np.where(included, scores, 0.5))
        positives = np.count_nonzero(labels, axis=0)
        negatives = np.count_nonzero(included, axis=0) - positives
        self.n_features_in_ = labels.shape[1]
        self.is_pooled_: BoolArray = np.minimum(positives, negatives) < self.min_positives
        if not (positives.any() and negatives.any()):
            raise ValueError(
                "`target` must have at least one positive and one negative among the included entries, got "
                f"{positives.sum()} and {negatives.sum()}."
            )
        if self.method == "isotonic":
            self.regressors_ = self._fit_isotonic(scores, labels, included)
        else:
            self.slopes_, self.intercepts_ = self._fit_scaling(scores, labels, included)
        return self

    def transform(self, preds: TensorLike) -> FloatArray:
        """Compute calibrated probabilities.

        Args:
            preds: Scores, shape `(n, L)`, as in `fit`.

        Returns:
            Probabilities, float64, shape `(n, L)`.

        Raises:
            TypeError: If `preds` does not contain real numbers.
            ValueError: If `preds` does not have L columns, or a score is not finite or not a probability.
        """
        check_is_fitted(self)
        scores = to_tensor(preds, "preds").cpu().numpy().astype(np.float64)
        if scores.ndim != 2 or scores.shape[1] != self.n_features_in_:
            raise ValueError(f"`preds` must have shape (n, {self.n_features_in_}), got {scores.shape}.")
        logits = self._to_logits(scores)
        if self.method != "isotonic":
            return cast(FloatArray, expit(logits * self.slopes_ + self.intercepts_))
        for label, regressor in enumerate(self.regressors_):
            logits[:, label] = regressor.predict(logits[:, label]) if len(logits) else logits[:, label]
        return logits

    def _to_logits(self, scores: FloatArray) -> FloatArray:
        """Check the scores and return logits as a new array."""
        invalid = ~np.isfinite(scores)
        if self.scale == "probabilities":
            invalid |= (scores < 0) | (scores > 1)
        if invalid.any():
            row, label = np.argwhere(invalid)[0]
            required = "probabilities, in [0, 1]" if self.scale == "probabilities" else "finite numbers"
            raise ValueError(
                f"`preds` must contain {required}, got {scores[row, label]:g} at row {row}, label {label}."
            )
        if self.scale == "logits":
            return scores.copy()
        return cast(FloatArray, logit(np.clip(scores, self.clip, 1 - self.clip)))

    def _fit_scaling(self, scores: FloatArray, labels: BoolArray, included: BoolArray) -> tuple[FloatArray, FloatArray]:
        fit = fit_temperature if self.method == "temperature" else fit_platt
        slopes, intercepts = np.empty(self.n_features_in_), np.empty(self.n_features_in_)
        if self.is_pooled_.any():
            pooled = fit(*(part.reshape(-1, 1) for part in (scores, labels, included)))  # type: ignore[arg-type]
            slopes[:], intercepts[:] = pooled
        own = np.flatnonzero(~self.is_pooled_)
        size = max(1, _CHUNK_SIZE // max(len(scores), 1))
        for start in range(0, len(own), size):
            chunk = own[start : start + size]
            slopes[chunk], intercepts[chunk] = fit(scores[:, chunk], labels[:, chunk], included[:, chunk])
        return slopes, intercepts

    def _fit_isotonic(self, scores: FloatArray, labels: BoolArray, included: BoolArray) -> list[IsotonicRegression]:
        def fit(*parts: npt.NDArray[Any]) -> IsotonicRegression:
            x, y, keep = parts
            low, high = (float(bound[0]) for bound in smoothed_targets(y[:, None], keep[:, None]))
            return IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(x[keep], y[keep])

        pooled = fit(scores.ravel(), labels.ravel(), included.ravel()) if self.is_pooled_.any() else None
        return [
            pooled if self.is_pooled_[label] else fit(scores[:, label], labels[:, label], included[:, label])
            for label in range(self.n_features_in_)
        ]


def check_calibration_settings(estimator: Any) -> None:
    """Check the parameters of a calibrator.

    Raises:
        ValueError: If one is out of range.
    """
    check_choice(estimator.method, "method", Method)
    if not estimator.min_positives >= 1:
        raise ValueError(f"`min_positives` must be at least 1, got {estimator.min_positives!r}.")
    if not 0 < estimator.clip < 0.5:
        raise ValueError(f"`clip` must be in (0, 0.5), got {estimator.clip!r}.")
