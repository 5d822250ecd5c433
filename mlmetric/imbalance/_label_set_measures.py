"""Measures of the label sets of rows: SCUMBLE, TCS, label cardinality and label density."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric._docstrings import inherit_docs
from mlmetric._label_rows import label_set_keys
from mlmetric.imbalance._imbalance_ratios import (
    FloatArray,
    count_positives,
    divide,
    has_missing,
    ir_lbl,
    mean_of_ratios,
    read_hard_labels,
    read_labels,
)
from mlmetric.labels import LabelsLike, label_array


def scumble_per_instance(labels: LabelsLike) -> FloatArray:
    """Compute for each row how strongly frequent and rare labels co-occur in it (SCUMBLE of an instance).

    This is 1 - geometric mean / arithmetic mean of the imbalance ratios of the row's labels. 0 is the best value: the
    labels of the row are equally frequent, or it has at most one label. The worst value approaches 1. The result for a
    row with a missing label is NaN, since its label set is not known. The imbalance ratios are computed by `ir_lbl`.

    Args:
        labels: Multi-hot, shape `(N, L)`: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame,
            with at least one row and one label. NaN for labels that are not annotated.

    Returns:
        float64 array, shape `(N,)`, in [0, 1) or NaN.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, is empty, or has an entry that is neither 0, 1 nor NaN.

    Examples:
        >>> from mlmetric.imbalance import scumble_per_instance
        >>> scumble_per_instance([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]]).round(4)
        array([0.2, 0. , 0. , 0. , 0. ])

    Source:
        Charte et al., HAIS 2014, and Neurocomputing 326-327, 2019 (arXiv 1802.05033). Both means are taken over the
        labels of the row only: with a 0 for each absent label, the geometric mean would be 0.
    """
    values = read_hard_labels(labels)
    return scumble_from_ratios(values, ir_lbl(values))


def scumble_from_ratios(values: npt.NDArray[Any], ratios: FloatArray) -> FloatArray:
    """Compute SCUMBLE for each row, given a label matrix and the imbalance ratios of its labels.

    NaN for a row with missing labels.
    """
    rows, columns = np.nonzero(values > 0)
    own = ratios[columns]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    geometric = np.exp(np.add.reduceat(np.log(own), starts) / sizes)
    arithmetic = np.add.reduceat(own, starts) / sizes
    # Rows of equal ratios get exactly 0: their two means can differ by rounding.
    uneven = np.maximum.reduceat(own, starts) > np.minimum.reduceat(own, starts)
    scores = np.zeros(len(values))
    scores[rows[starts]] = np.where(uneven, np.maximum(1 - geometric / arithmetic, 0), 0)
    if has_missing(values):
        scores[np.isnan(values).any(axis=1)] = np.nan
    return scores


def mean_of_scores(scores: FloatArray) -> float:
    """Average the scores of the rows that are annotated for all labels; NaN if there are none."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if len(defined) else math.nan


@inherit_docs(scumble_per_instance)
def scumble(labels: LabelsLike) -> float:
    """Compute the mean SCUMBLE of the rows: how strongly frequent and rare labels co-occur.

    0 is the best value (no row contains both frequent and rare labels); the worst value approaches 1. Rows without
    labels count as 0. Rows with a missing label are left out; if there are no other rows, the result is NaN.

    Returns:
        A number in [0, 1), or NaN.

    Examples:
        >>> from mlmetric.imbalance import scumble
        >>> round(scumble([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]]), 4)
        0.04

    Source:
        Charte et al., Neurocomputing 326-327, 2019 (arXiv 1802.05033).
    """
    return mean_of_scores(scumble_per_instance(labels))


@inherit_docs(scumble_per_instance)
def scumble_per_label(labels: LabelsLike) -> FloatArray:
    """Compute for each label the mean SCUMBLE of the rows with that label (SCUMBLELbl).

    0 is the best value (the label co-occurs only with labels that are equally frequent); the worst value approaches 1.
    The result for a label without positives is NaN. Rows with a missing label are left out.

    Returns:
        float64 array, shape `(L,)`, in [0, 1) or NaN.

    Examples:
        >>> from mlmetric.imbalance import scumble_per_label
        >>> scumble_per_label([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]]).round(4)
        array([0.05, 0.2 ])

    Source:
        Charte et al., Neurocomputing 326-327, 2019 (arXiv 1802.05033).
    """
    values = read_hard_labels(labels)
    return mean_over_rows_with_label(scumble_from_ratios(values, ir_lbl(values)), values)


def mean_over_rows_with_label(scores: FloatArray, values: npt.NDArray[Any]) -> FloatArray:
    """Average a score of each row over the rows with each label, shape `(L,)`; NaN for a label without positives.

    Rows with score NaN are left out.
    """
    rows, columns = np.nonzero((values > 0) & ~np.isnan(scores)[:, None])
    sums, counts = (
        np.bincount(columns, weights=weights, minlength=values.shape[1]).astype(np.float64)
        for weights in (scores[rows], None)
    )
    return divide(sums, counts)


def tcs(labels: LabelsLike, *, num_features: int) -> float:
    """Compute the theoretical complexity score: ln(features * labels * distinct label sets) (TCS).

    A larger value means that the data are harder to learn. The empty label set counts as a label set, and a label
    without positives as a label. Missing labels are not supported: the rows without them would have fewer distinct
    label sets than all rows.

    Args:
        labels: Multi-hot, shape `(N, L)`: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame,
            with at least one row and one label.
        num_features: Number of input features, >= 1.

    Returns:
        A number >= 0.

    Raises:
        TypeError: If `labels` is not numeric.
        ValueError: If `labels` is not two-dimensional, is empty, or has an entry that is missing or neither 0 nor 1; or
            if `num_features` is below 1.

    Examples:
        >>> from mlmetric.imbalance import tcs
        >>> round(tcs([[1, 1], [1, 0], [1, 0], [0, 0]], num_features=10), 4)  # ln(10 * 2 * 3)
        4.0943

    Source:
        Charte et al., "On the impact of dataset complexity and sampling strategy in multilabel classifiers
        performance", HAIS 2016.
    """
    if num_features < 1:
        raise ValueError(f"`num_features` must be at least 1, got {num_features}.")
    values = read_hard_labels(label_array(labels, used_by="`tcs`"))
    return math.log(num_features * values.shape[1] * len(np.unique(label_set_keys(values))))


@inherit_docs(ir_lbl)
def label_cardinality(labels: LabelsLike) -> float:
    """Compute the mean number of labels per row.

    With missing labels, it is the sum of the frequencies of the labels, each among the rows that are annotated for it.
    A label without annotated rows is left out; the result is NaN if no label has any.

    Returns:
        A number from 0 to L.

    Examples:
        >>> from mlmetric.imbalance import label_cardinality
        >>> label_cardinality([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
        1.5

    Source:
        Tsoumakas and Katakis, International Journal of Data Warehousing and Mining 3(3), 2007.
    """
    values = read_labels(labels)
    if has_missing(values):
        frequencies = divide(*count_positives(values))
        return math.nan if np.isnan(frequencies).all() else float(np.nansum(frequencies))
    return float(values.sum(axis=1, dtype=np.float64).mean())


@inherit_docs(ir_lbl)
def label_density(labels: LabelsLike) -> float:
    """Compute the mean fraction of the labels that a row has: label cardinality / L.

    With missing labels, it is the mean frequency of the labels, each among the rows that are annotated for it. A label
    without annotated rows is left out; the result is NaN if no label has any.

    Returns:
        A number from 0 to 1.

    Examples:
        >>> from mlmetric.imbalance import label_density
        >>> label_density([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
        0.5

    Source:
        Tsoumakas and Katakis, International Journal of Data Warehousing and Mining 3(3), 2007.
    """
    values = read_labels(labels)
    return mean_of_ratios(divide(*count_positives(values))) if has_missing(values) else float(values.mean(dtype=float))
