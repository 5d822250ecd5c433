"""How unevenly labels occur, and how rare and frequent ones share rows.

Every measure takes a label matrix `(N, L)` as a tensor, an array or a scipy sparse matrix and computes in float64.
A label without positives has no imbalance ratio: it is NaN, left out of every mean, and neither majority nor minority.
`imbalance_report` measures all at once.
"""

from mlmetric.imbalance._concurrence import scumble, scumble_per_instance, scumble_per_label
from mlmetric.imbalance._ratios import cvir, ir_lbl, majority_labels, mean_ir, minority_labels
from mlmetric.imbalance._report import ImbalanceReport, imbalance_report
from mlmetric.imbalance._size import label_cardinality, label_density, tcs

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
