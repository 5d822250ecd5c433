"""Removal of rows whose nearest neighbour carries other labels."""

from __future__ import annotations

from math import sqrt
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from mlmetric.imbalance import majority_labels, mean_ir, minority_labels, scumble
from mlmetric.under_sampling._base import exceeds
from mlmetric.under_sampling._data import LabelArray, Mask, Rows
from mlmetric.under_sampling._neighbor_base import (
    LABEL_SIMILARITIES,
    BaseNeighborSampler,
    LabelDistance,
    above,
    label_distances,
)


class MultiLabelTomekLinks(BaseNeighborSampler):
    """Remove rows whose nearest neighbour carries other labels: multi-label Tomek links (MLTL).

    A candidate goes when the distance of its label set to that of its nearest other row is above a threshold; all go
    at once. Two rows without labels have label distance 0. The sampler records what it did and warns when MeanIR rose,
    more than half of the rows went, or a label lost every positive: on noisy data the published rule, which is the
    default, can do all of it, and `protect_minority=True` is then the milder one.

    Args:
        mode: `"undersampling"`: candidates are the rows with a majority label; `"cleaning"`: all rows.
        threshold: Label distance in [0, 1] above which a candidate goes, or `"auto"`: by 1 / sqrt(MeanIR), 0.5 if that
            is above 0.5, 0.3 if above 0.3, else 0.15; and 0.5 whenever SCUMBLE is above 0.3.
        mutual: Whether the two rows must be each other's nearest, a link in Tomek's sense.
        protect_minority: Whether rows with a minority label stay in any case.
        label_distance: `"jaccard"`: differing labels by labels of either row; `"dice"`: by the sizes of both added;
            `"hamming"`: by L.

    Attributes:
        threshold_: The threshold used.
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are fewer than two rows or every row would go.

    Examples:
        >>> X = np.array([[0.0], [0.1], [1.0], [1.2], [2.0]])
        >>> y = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 1]])
        >>> sampler = MultiLabelTomekLinks()
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.sample_indices_  # row 0 lies beside {1}; row 4 shares one of two labels, and 1/2 is not above 0.5
        array([1, 2, 3, 4])
        >>> sampler.removed_per_label_, sampler.mean_ir_before_, sampler.mean_ir_after_
        (array([1, 0]), 1.5, 1.25)

    Source:
        Pereira, Costa, Silla, Neurocomputing 383, 2020 (10.1016/j.neucom.2019.11.076), by the authors' program.
        Deviations: neighbours are sought by the features alone, the program lets the label columns in; `mutual`,
        `protect_minority` and the other label distances are ours.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "mode": [StrOptions({"undersampling", "cleaning"})],
        "threshold": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both")],
        "mutual": ["boolean"],
        "protect_minority": ["boolean"],
        "label_distance": [StrOptions(set(LABEL_SIMILARITIES))],
    }

    def __init__(
        self,
        *,
        mode: Literal["undersampling", "cleaning"] = "undersampling",
        threshold: float | Literal["auto"] = "auto",
        mutual: bool = False,
        protect_minority: bool = False,
        label_distance: LabelDistance = "jaccard",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.threshold = threshold
        self.mutual = mutual
        self.protect_minority = protect_minority
        self.label_distance = label_distance

    def _num_neighbors(self) -> int:
        return 1

    def _keep(self, labels: LabelArray, neighbors: Rows) -> Mask:
        self.threshold_ = _auto_threshold(labels) if self.threshold == "auto" else float(self.threshold)
        marked = above(label_distances(labels, neighbors, self.label_distance)[:, 0], self.threshold_)
        if self.mode == "undersampling":
            marked &= labels[:, majority_labels(labels)].any(axis=1)
        if self.mutual:
            nearest = neighbors[:, 0]
            marked &= nearest[nearest] == np.arange(len(labels))
        if self.protect_minority:
            marked &= ~labels[:, minority_labels(labels)].any(axis=1)
        return ~marked


def _auto_threshold(labels: LabelArray) -> float:
    balance = 1 / sqrt(mean_ir(labels))
    if exceeds(balance, 0.5) or exceeds(scumble(labels), 0.3):
        return 0.5
    return 0.3 if exceeds(balance, 0.3) else 0.15
