"""How much rarer each label is than the most frequent one."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mlmetric.imbalance._matrix import Floats, Labels, divide, read_labels
from mlmetric.labels import label_counts

# Far above the error of a mean of ratios.
_ROUNDING = 1e-12


def ir_lbl(labels: Labels) -> Floats:
    """Divide the count of the most frequent label by the count of each: the imbalance ratio per label (IRLbl).

    1 is best (as frequent as the most frequent label), there is no worst. A label without positives is NaN.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares. At least one row and one label.

    Returns:
        float64, shape `(L,)`, >= 1 or NaN.

    Raises:
        TypeError: If `labels` is neither a tensor, an array nor a sparse matrix.
        ValueError: If it is not two-dimensional, empty, or an entry is NaN or outside [0, 1].

    Examples:
        >>> ir_lbl(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([ 1.,  2., nan])

    Source:
        Charte et al., Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). It says nothing of a label without
        positives, and implementations disagree.
    """
    counts = label_counts(read_labels(labels))
    return divide(np.full_like(counts, counts.max()), counts)


def mean_ir(labels: Labels) -> float:
    """Average the imbalance ratios of the labels (MeanIR).

    1 is best (all labels equally frequent), there is no worst. Labels without positives are left out; NaN if no label
    has positives.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number >= 1, or NaN.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> mean_ir(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        1.5

    Source:
        Charte et al. 2015. Deviation: labels without positives are left out.
    """
    return mean_of_ratios(ir_lbl(labels))


def cvir(labels: Labels) -> float:
    """Divide the standard deviation of the imbalance ratios by their mean (CVIR).

    0 is best (all labels equally imbalanced), there is no worst. Labels without positives are left out; NaN if fewer
    than two labels have positives, for one number has no deviation.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number >= 0, or NaN.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> round(cvir(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])), 4)
        0.4714

    Source:
        Charte et al. 2015 (deviation over L - 1). Deviation: labels without positives are left out.
    """
    return variation_of_ratios(ir_lbl(labels))


def majority_labels(labels: Labels) -> npt.NDArray[np.bool_]:
    """Say which labels are majority labels: an imbalance ratio below MeanIR.

    A label whose ratio equals MeanIR, to within rounding, is neither majority nor minority.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        bool, shape `(L,)`.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> majority_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([ True, False, False])

    Source:
        Charte et al. 2015.
    """
    return below_mean(ir_lbl(labels))


def minority_labels(labels: Labels) -> npt.NDArray[np.bool_]:
    """Say which labels are minority labels: an imbalance ratio above MeanIR.

    A label whose ratio equals MeanIR, to within rounding, is neither majority nor minority.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        bool, shape `(L,)`.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> minority_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([False,  True, False])

    Source:
        Charte et al. 2015.
    """
    return above_mean(ir_lbl(labels))


def mean_of_ratios(ratios: Floats) -> float:
    present = _present(ratios)
    return float(present.mean()) if len(present) else math.nan


def variation_of_ratios(ratios: Floats) -> float:
    present = _present(ratios)
    return float(present.std(ddof=1) / present.mean()) if len(present) > 1 else math.nan


def below_mean(ratios: Floats) -> npt.NDArray[np.bool_]:
    return ratios < mean_of_ratios(ratios) * (1 - _ROUNDING)


def above_mean(ratios: Floats) -> npt.NDArray[np.bool_]:
    return ratios > mean_of_ratios(ratios) * (1 + _ROUNDING)


def _present(ratios: Floats) -> Floats:
    return ratios[~np.isnan(ratios)]
