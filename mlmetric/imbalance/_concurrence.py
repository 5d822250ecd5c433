"""How far rare and frequent labels share rows."""

from __future__ import annotations

import numpy as np

from mlmetric.imbalance._matrix import Floats, Labels, divide, read_hard_labels
from mlmetric.imbalance._ratios import ir_lbl
from mlmetric.labels import label_counts


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

    Examples:
        >>> scumble_per_instance(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]])).round(4)
        array([0.2, 0. , 0. , 0. , 0. ])

    Source:
        Charte et al., HAIS 2014, and Neurocomputing 326-327, 2019 (arXiv 1802.05033). Both means run over
        the row's own labels: with the 0 of each absent label in it, the geometric mean would vanish.
    """
    values = read_hard_labels(labels)
    return scumble_from_ratios(values, ir_lbl(values))


def scumble_from_ratios(values: Floats, ratios: Floats) -> Floats:
    """Measure each row of a multi-hot matrix, given the imbalance ratios of its labels."""
    rows, columns = np.nonzero(values)
    own = ratios[columns]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    geometric = np.exp(np.add.reduceat(np.log(own), starts) / sizes)
    arithmetic = np.add.reduceat(own, starts) / sizes
    # Rows of equal ratios are set apart: their two means differ by rounding alone.
    uneven = np.maximum.reduceat(own, starts) > np.minimum.reduceat(own, starts)
    scores = np.zeros(len(values))
    scores[rows[starts]] = np.where(uneven, np.maximum(1 - geometric / arithmetic, 0), 0)
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

    Examples:
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

    Examples:
        >>> scumble_per_label(np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 0]])).round(4)
        array([0.05, 0.2 ])

    Source:
        Charte et al. 2019.
    """
    values = read_hard_labels(labels)
    return divide(scumble_per_instance(values) @ values, label_counts(values))
