"""Logistic regressions of labels on their scores: temperature and Platt scaling of many labels at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MAX_STEPS = 100
_SMALLEST_SLOPE, _LARGEST_SLOPE = np.exp(-10), np.exp(10)
_TOLERANCE = 1e-10
_HALVINGS = 30


def fit_temperature(scores: FloatArray, labels: BoolArray, included: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the slope of each label, 1 / temperature from `e^-10` to `e^10`, and intercepts of 0, both `(L,)`."""
    targets = labels.astype(np.float64)
    slope, _ = _newton(scores, targets, included, has_intercept=False)
    slope = np.clip(slope, _SMALLEST_SLOPE, _LARGEST_SLOPE)
    return slope, np.zeros_like(slope)


def fit_platt(scores: FloatArray, labels: BoolArray, included: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return slope and intercept of each label, both `(L,)`, with Platt's targets in place of 0 and 1."""
    lowest, highest = smoothed_targets(labels, included)
    return _newton(scores, np.where(labels, highest, lowest), included, has_intercept=True)


def smoothed_targets(labels: BoolArray, included: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return Platt's targets of absent and of present entries, both `(L,)`."""
    present = np.count_nonzero(labels & included, axis=0)
    absent = np.count_nonzero(included, axis=0) - present
    return 1 / (absent + 2), (present + 1) / (present + 2)


def _newton(
    scores: FloatArray, targets: FloatArray, included: BoolArray, *, has_intercept: bool
) -> tuple[FloatArray, FloatArray]:
    """Minimise the cross entropy of `slope * score + intercept` for each label, by Newton's method with step halving.

    The steps are taken on scores that are divided by their standard deviation and, with an intercept, centred.
    """
    weight = included.astype(np.float64)
    total = np.maximum(weight.sum(axis=0), 1)
    center = (weight * scores).sum(axis=0) / total if has_intercept else np.zeros(scores.shape[1])
    scale = np.sqrt((weight * np.square(scores - center)).sum(axis=0) / total)
    scale[scale == 0] = 1
    z = weight * (scores - center) / scale

    def cross_entropy(slope: FloatArray, intercept: FloatArray) -> FloatArray:
        logits = slope * z + intercept
        losses: FloatArray = (weight * (np.logaddexp(0, logits) - targets * logits)).sum(axis=0)
        return losses

    slope, intercept = np.zeros(z.shape[1]), np.zeros(z.shape[1])
    loss = cross_entropy(slope, intercept)
    for _ in range(MAX_STEPS):
        probabilities = expit(slope * z + intercept)
        errors, curvature = weight * (probabilities - targets), weight * probabilities * (1 - probabilities)
        gradient_a, gradient_b = (errors * z).sum(axis=0), errors.sum(axis=0)
        aa, ab, bb = (curvature * z * z).sum(axis=0) + 1e-12, (curvature * z).sum(axis=0), curvature.sum(axis=0) + 1e-12
        if has_intercept:
            determinant = np.maximum(aa * bb - ab * ab, 1e-300)
            step_a = (bb * gradient_a - ab * gradient_b) / determinant
            step_b = (aa * gradient_b - ab * gradient_a) / determinant
        else:
            step_a, step_b = gradient_a / aa, np.zeros_like(gradient_b)
        decrease = step_a * gradient_a + step_b * gradient_b
        size = np.ones_like(loss)
        for _ in range(_HALVINGS):
            new = cross_entropy(slope - size * step_a, intercept - size * step_b)
            worse = ~(new <= loss - 1e-4 * size * decrease + 1e-12 * np.abs(loss))
            if not worse.any():
                break
            size[worse] /= 2
        size[worse] = 0
        slope, intercept = slope - size * step_a, intercept - size * step_b
        loss = np.where(worse, loss, new)
        if (decrease <= _TOLERANCE * np.maximum(total, 1)).all() or worse.all():
            break
    return slope / scale, intercept - slope * center / scale
