"""Imbalance ratios of labels, their mean and variation, and the majority and minority labels."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike, label_array, label_counts

FloatArray: TypeAlias = npt.NDArray[np.float64]

# Far above the rounding error of a mean of ratios.
_ROUNDING = 1e-12


def ir_lbl(labels: LabelsLike) -> FloatArray:
    """Compute the imbalance ratio of each label: the highest count of a label divided by the label's own count (IRLbl).

    1 is the best value (as frequent as the most frequent label); there is no upper bound. The ratio of a label without
    positives is NaN. With missing labels, the count of a label is the count expected in all N rows: its positives times
    N, divided by the number of rows that are annotated for the label.

    Args:
        labels: Shape `(N, L)`, in [0, 1]: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame,
            with at least one row and one label. Soft labels contribute their values to the counts. NaN for labels that
            are not annotated.

    Returns:
        float64 array, shape `(L,)`, >= 1 or NaN.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, is empty, or has an entry outside [0, 1].

    Examples:
        >>> from mlmetric.imbalance import ir_lbl
        >>> ir_lbl([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
        array([ 1.,  2., nan])
        >>> ir_lbl([[1, 1], [1, 0], [1, None], [1, None]])  # the second label has 1 of 2 annotated rows
        array([1., 2.])

    Source:
        Charte et al., Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). The paper does not define the ratio of a
        label without positives, and implementations differ. Addition: missing labels.
    """
    values = read_labels(labels)
    return imbalance_ratios(*count_positives(values), num_rows=len(values))


@inherit_docs(ir_lbl)
def mean_ir(labels: LabelsLike) -> float:
    """Compute the mean of the imbalance ratios of the labels (MeanIR).

    1 is the best value (all labels equally frequent); there is no upper bound. Labels without positives are left out;
    the mean is NaN if no label has positives.

    Returns:
        A number >= 1, or NaN.

    Examples:
        >>> from mlmetric.imbalance import mean_ir
        >>> mean_ir([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
        1.5

    Source:
        Charte et al., Neurocomputing 163, 2015. Deviation: labels without positives are left out.
    """
    return mean_of_ratios(ir_lbl(labels))


@inherit_docs(ir_lbl)
def cvir(labels: LabelsLike) -> float:
    """Compute the coefficient of variation of the imbalance ratios: standard deviation / mean (CVIR).

    0 is the best value (all labels equally imbalanced); there is no upper bound. Labels without positives are left out;
    the result is NaN if fewer than two labels have positives.

    Returns:
        A number >= 0, or NaN.

    Examples:
        >>> from mlmetric.imbalance import cvir
        >>> round(cvir([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]), 4)
        0.4714

    Source:
        Charte et al., Neurocomputing 163, 2015, with the standard deviation over L - 1. Deviation: labels without
        positives are left out.
    """
    return variation_of_ratios(ir_lbl(labels))


@inherit_docs(ir_lbl)
def majority_labels(labels: LabelsLike) -> npt.NDArray[np.bool_]:
    """Return which labels are majority labels: those with an imbalance ratio below MeanIR.

    A label whose ratio equals MeanIR, up to rounding, is neither a majority nor a minority label.

    Returns:
        bool array, shape `(L,)`.

    Examples:
        >>> from mlmetric.imbalance import majority_labels
        >>> majority_labels([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
        array([ True, False, False])

    Source:
        Charte et al., Neurocomputing 163, 2015.
    """
    return below_mean(ir_lbl(labels))


@inherit_docs(ir_lbl)
def minority_labels(labels: LabelsLike) -> npt.NDArray[np.bool_]:
    """Return which labels are minority labels: those with an imbalance ratio above MeanIR.

    A label whose ratio equals MeanIR, up to rounding, is neither a majority nor a minority label.

    Returns:
        bool array, shape `(L,)`.

    Examples:
        >>> from mlmetric.imbalance import minority_labels
        >>> minority_labels([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
        array([False,  True, False])

    Source:
        Charte et al., Neurocomputing 163, 2015.
    """
    return above_mean(ir_lbl(labels))


def read_labels(labels: LabelsLike) -> npt.NDArray[Any]:
    """Check hard or soft labels, and return an array of any real dtype with at least one row and one label.

    Missing labels are NaN.
    """
    values = label_array(labels, allow_missing=True)
    if values.size == 0:
        raise ValueError(f"`labels` must have at least one row and one label, got shape {values.shape}.")
    return values


def read_hard_labels(labels: LabelsLike) -> npt.NDArray[Any]:
    """Check multi-hot labels, and return an array of any real dtype with at least one row and one label.

    Missing labels are NaN.
    """
    values = read_labels(labels)
    if values.dtype.kind == "f":  # integers in [0, 1] are 0 or 1
        soft = (values > 0) & (values < 1)
        if soft.any():
            row, column = np.argwhere(soft)[0]
            raise ValueError(
                f"`labels` must be multi-hot, got {values[row, column]} at row {row}, label {column}. "
                "This measure requires hard labels: choose a threshold, for example `labels >= 0.5`."
            )
    return values


def has_missing(values: npt.NDArray[Any]) -> bool:
    """Return whether a label is missing."""
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def count_positives(values: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Count the positives and the annotated rows of each label: float64, shape `(L,)` each."""
    if not has_missing(values):
        return label_counts(values), np.full(values.shape[1], float(len(values)))
    return np.nansum(values, axis=0, dtype=np.float64), (~np.isnan(values)).sum(axis=0, dtype=np.float64)


def imbalance_ratios(positives: FloatArray, annotated: FloatArray, *, num_rows: int) -> FloatArray:
    """Divide the largest expected count of a label in all rows by each count; NaN for a label without positives."""
    counts = positives * divide(np.full_like(annotated, num_rows), annotated, undefined=0.0)
    return divide(np.full_like(counts, counts.max()), counts)


def divide(sums: FloatArray, counts: FloatArray, *, undefined: float = math.nan) -> FloatArray:
    """Divide where `counts` is above 0; `undefined` elsewhere."""
    ratios = np.full(sums.shape, undefined)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios


def mean_of_ratios(ratios: FloatArray) -> float:
    defined = _defined(ratios)
    return float(defined.mean()) if len(defined) else math.nan


def variation_of_ratios(ratios: FloatArray) -> float:
    defined = _defined(ratios)
    return float(defined.std(ddof=1) / defined.mean()) if len(defined) > 1 else math.nan


def below_mean(ratios: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(is_greater(mean_of_ratios(ratios), ratios))


def above_mean(ratios: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(is_greater(ratios, mean_of_ratios(ratios)))


def is_greater(measure: Any, bound: Any) -> Any:
    """Return whether a measure of imbalance, a number >= 0 or an array, is above a bound by more than rounding."""
    return measure > bound * (1 + _ROUNDING)


def _defined(ratios: FloatArray) -> FloatArray:
    return ratios[~np.isnan(ratios)]
