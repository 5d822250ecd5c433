"""How many labels rows carry, and how many sets of them there are."""

from __future__ import annotations

import math

import numpy as np

from mlmetric._label_sets import label_set_keys
from mlmetric.imbalance._matrix import Labels, read_hard_labels, read_labels


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

    Examples:
        >>> round(tcs(np.array([[1, 1], [1, 0], [1, 0], [0, 0]]), num_features=10), 4)  # ln(10 * 2 * 3)
        4.0943

    Source:
        Charte et al., "On the impact of dataset complexity and sampling strategy in multilabel classifiers
        performance", HAIS 2016.
    """
    if num_features < 1:
        raise ValueError(f"`num_features` must be at least 1, got {num_features}.")
    values = read_hard_labels(labels)
    return math.log(num_features * values.shape[1] * len(np.unique(label_set_keys(values))))


def label_cardinality(labels: Labels) -> float:
    """Average the number of labels of a row.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number from 0 to L.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> label_cardinality(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]))
        1.5

    Source:
        Tsoumakas and Katakis, International Journal of Data Warehousing and Mining 3(3), 2007.
    """
    return float(read_labels(labels).sum(axis=1).mean())


def label_density(labels: Labels) -> float:
    """Average the share of the labels that a row carries: cardinality / L.

    Args:
        labels: Shape `(N, L)`, in [0, 1]; soft labels add up their shares.

    Returns:
        A number from 0 to 1.

    Raises:
        TypeError: As for `ir_lbl`.
        ValueError: As for `ir_lbl`.

    Examples:
        >>> label_density(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]))
        0.5

    Source:
        Tsoumakas and Katakis 2007.
    """
    return float(read_labels(labels).mean())
