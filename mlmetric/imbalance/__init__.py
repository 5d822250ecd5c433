"""Measure label imbalance, and how strongly frequent and rare labels co-occur.

Every measure accepts a label matrix `(N, L)` as a tensor, an array, a list of rows, a scipy sparse matrix or a data
frame, and computes in float64. The imbalance ratio of a label without positives is NaN; it is excluded from every mean,
and the label is neither a majority nor a minority label. `imbalance_report` computes all measures.
"""

from mlmetric.imbalance._imbalance_ratios import cvir, ir_lbl, majority_labels, mean_ir, minority_labels
from mlmetric.imbalance._imbalance_report import ImbalanceReport, imbalance_report
from mlmetric.imbalance._label_set_measures import (
    label_cardinality,
    label_density,
    scumble,
    scumble_per_instance,
    scumble_per_label,
    tcs,
)

__all__ = [
    "ImbalanceReport",
    "cvir",
    "imbalance_report",
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
