"""How unevenly labels occur, and how rare and frequent ones share rows.

Every measure takes a label matrix `(N, L)` as a tensor, an array or a scipy sparse matrix and computes in float64.
A label without positives has no imbalance ratio: it is NaN, left out of every mean, and neither majority nor minority.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from mlmetric.labels import check_labels, label_counts

__all__ = [
    "cvir",
    "ir_lbl",
    "label_cardinality",
    "label_density",
    "majority_labels",
    "mean_ir",
    "minority_labels",
    "scumble",
    "scumble_per_instance",
    "scumble_per_label",
    "tcs",
]

Labels: TypeAlias = torch.Tensor | npt.NDArray[Any] | sparse.sparray | sparse.spmatrix
Floats: TypeAlias = npt.NDArray[np.float64]


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

    Example:
        >>> ir_lbl(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([ 1.,  2., nan])

    Source:
        Charte et al., Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). It says nothing of a label without
        positives, and implementations disagree.
    """
    counts = label_counts(_matrix(labels))
    return _divide(np.full_like(counts, counts.max()), counts)


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

    Example:
        >>> mean_ir(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        1.5

    Source:
        Charte et al. 2015. Deviation: labels without positives are left out.
    """
    ratios = _present(ir_lbl(labels))
    return float(ratios.mean()) if len(ratios) else math.nan


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

    Example:
        >>> round(cvir(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]])), 4)
        0.4714

    Source:
        Charte et al. 2015 (deviation over L - 1). Deviation: labels without positives are left out.
    """
    ratios = _present(ir_lbl(labels))
    return float(ratios.std(ddof=1) / ratios.mean()) if len(ratios) > 1 else math.nan


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

    Example:
        >>> majority_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([ True, False, False])

    Source:
        Charte et al. 2015.
    """
    return ir_lbl(labels) < mean_ir(labels) * (1 - _ROUNDING)


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

    Example:
        >>> minority_labels(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]))
        array([False,  True, False])

    Source:
        Charte et al. 2015.
    """
    return ir_lbl(labels) > mean_ir(labels) * (1 + _ROUNDING)


def scumble_per_instance(labels: Labels) -> Floats:
    """Measure for each row how far rare and frequent labels meet in it: one minus geometric by arithmetic mean.

    The means are those of the imbalance ratios of the row's labels. 0 is best: the row's labels are equally frequent,
    or it has one label or none. The worst is towards 1.

    Args:
        labels: Multi-hot, shape `(N, L)`.

    Returns:
        float64, shape `(N,)`, in [0, 1).

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`, or if an entry is neither 0 nor 1.

    Example:
        >>> scumble_per_instance(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]])).round(4)
        array([0.2, 0. , 0. , 0. , 0. ])

    Source:
        Charte et al., HAIS 2014, and Neurocomputing 326-327, 2019 (arXiv 1802.05033). Both means run over
        the row's own labels: with the 0 of each absent label in it, the geometric mean would vanish.
    """
    active = _hard_matrix(labels) > 0
    ratios = np.nan_to_num(ir_lbl(labels), nan=1.0)
    # Rows of equal ratios are set apart: their two means differ by rounding alone.
    uneven = np.where(active, ratios, -np.inf).max(axis=1) > np.where(active, ratios, np.inf).min(axis=1)
    sizes = active[uneven].sum(axis=1)
    geometric = np.exp(active[uneven] @ np.log(ratios) / sizes)
    arithmetic = active[uneven] @ ratios / sizes
    scores = np.zeros(len(active))
    scores[uneven] = np.maximum(1 - geometric / arithmetic, 0)
    return scores


def scumble(labels: Labels) -> float:
    """Average over the rows how far rare and frequent labels meet (SCUMBLE).

    0 is best (no row mixes them), the worst is towards 1. Rows without labels count as 0.

    Args:
        labels: Multi-hot, shape `(N, L)`.

    Returns:
        A number in [0, 1).

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `scumble_per_instance`.

    Example:
        >>> round(scumble(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]])), 4)
        0.04

    Source:
        Charte et al. 2019.
    """
    return float(scumble_per_instance(labels).mean())


def scumble_per_label(labels: Labels) -> Floats:
    """Average SCUMBLE over the rows that carry a label (SCUMBLELbl).

    0 is best (the label meets only labels as frequent as itself), the worst is towards 1. A label without positives is
    NaN.

    Args:
        labels: Multi-hot, shape `(N, L)`.

    Returns:
        float64, shape `(L,)`, in [0, 1) or NaN.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `scumble_per_instance`.

    Example:
        >>> scumble_per_label(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]])).round(4)
        array([0.05, 0.2 ])

    Source:
        Charte et al. 2019.
    """
    values = _hard_matrix(labels)
    return _divide(scumble_per_instance(values) @ values, label_counts(values))


def tcs(labels: Labels, *, num_features: int) -> float:
    """Take the logarithm of features times labels times distinct label sets: theoretical complexity score (TCS).

    Larger is harder to learn. The empty label set counts as one, a label without positives as a label.

    Args:
        labels: Multi-hot, shape `(N, L)`.
        num_features: Number of input features, >= 1.

    Returns:
        A number >= 0.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `scumble_per_instance`, or if `num_features` is below 1.

    Example:
        >>> round(tcs(np.array([[1, 1], [1, 0], [1, 0], [0, 0]]), num_features=10), 4)  # ln(10 * 2 * 3)
        4.0943

    Source:
        Charte et al., "On the impact of dataset complexity and sampling strategy in multilabel classifiers
        performance", HAIS 2016.
    """
    if num_features < 1:
        raise ValueError(f"`num_features` must be at least 1, got {num_features}.")
    values = _hard_matrix(labels)
    return math.log(num_features * values.shape[1] * len(np.unique(values, axis=0)))


def label_cardinality(labels: Labels) -> float:
    """Average the number of labels of a row.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number from 0 to L.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Example:
        >>> label_cardinality(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]))
        1.5

    Source:
        Tsoumakas and Katakis, International Journal of Data Warehousing and Mining 3(3), 2007.
    """
    return float(_matrix(labels).sum(axis=1).mean())


def label_density(labels: Labels) -> float:
    """Average the share of the labels that a row carries: cardinality / L.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number from 0 to 1.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Example:
        >>> label_density(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]))
        0.5

    Source:
        Tsoumakas and Katakis 2007.
    """
    return float(_matrix(labels).mean())


# Far above the error of a mean of ratios, far below the gap between two ratios of counts.
_ROUNDING = 1e-12


def _divide(sums: Floats, counts: Floats) -> Floats:
    ratios = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=ratios, where=counts > 0)
    return ratios


def _present(ratios: Floats) -> Floats:
    return ratios[~np.isnan(ratios)]


def _matrix(labels: Labels) -> Floats:
    dense: Any = labels
    if sparse.issparse(labels):
        dense = dense.toarray()
    elif isinstance(labels, torch.Tensor):
        dense = labels.detach().cpu().double().numpy()
    values: Floats = check_labels(dense).astype(np.float64)
    if values.size == 0:
        raise ValueError(f"`labels` must have at least one row and one label, got shape {values.shape}.")
    return values


def _hard_matrix(labels: Labels) -> Floats:
    values = _matrix(labels)
    soft = (values != 0) & (values != 1)
    if soft.any():
        row, column = np.argwhere(soft)[0]
        raise ValueError(
            f"`labels` must be multi-hot, got {values[row, column]} at row {row}, label {column}. "
            "This measure is one of label sets: choose a threshold, say `labels >= 0.5`."
        )
    return values
