"""Removal of rows whose nearest neighbour has other labels: multi-label Tomek links."""

from __future__ import annotations

from math import sqrt
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from mlmetric.imbalance import majority_labels, mean_ir, minority_labels, scumble
from mlmetric.imbalance._imbalance_ratios import is_greater
from mlmetric.similarity import exceeds
from mlmetric.under_sampling._base_neighbor_sampler import (
    LABEL_SIMILARITIES,
    BaseNeighborSampler,
    LabelDistance,
    label_distances,
)
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices, RowMask


class MultiLabelTomekLinks(BaseNeighborSampler):
    """Remove rows whose nearest neighbour has other labels: multi-label Tomek links (MLTL).

    A candidate is removed if the distance between its label set and the label set of its nearest neighbour is above
    `threshold`. Removed rows still count as neighbours of other rows. Two rows without labels have label distance 0.
    The sampler warns if MeanIR increased, more than half of the rows were removed, or a label lost all its positives.
    On noisy data the published rule, which is the default, can cause all three; `protect_minority=True` removes fewer
    rows.

    Args:
        mode: `"undersampling"`: the candidates are the rows with a majority label. `"cleaning"`: all rows are
            candidates.
        threshold: Label distance in [0, 1] above which a candidate is removed. `"auto"` chooses it by 1 / sqrt(MeanIR):
            0.5 if this value is above 0.5, 0.3 if it is above 0.3, and 0.15 otherwise. If SCUMBLE is above 0.3, the
            threshold is always 0.5.
        mutual: Whether the two rows must be each other's nearest neighbours, as in Tomek's definition of a link.
        protect_minority: Whether to keep all rows with a minority label.
        label_distance: Number of labels that only one of the two rows has, divided by the number of labels that at
            least one of them has (`"jaccard"`), by the sum of their numbers of labels (`"dice"`), or by L
            (`"hamming"`).

    Attributes:
        threshold_: The threshold used.
        sample_indices_: Indices of the rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are fewer than two rows, or all rows would be removed.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import MultiLabelTomekLinks
        >>> X = np.array([[0.0], [0.1], [1.0], [1.2], [2.0]])
        >>> y = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 1]])
        >>> sampler = MultiLabelTomekLinks()
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.sample_indices_  # row 0 is next to row 1 with label set {1}; the distance of row 4 is 0.5
        array([1, 2, 3, 4])
        >>> sampler.removed_per_label_, sampler.mean_ir_before_, sampler.mean_ir_after_
        (array([1, 0]), 1.5, 1.25)

    Source:
        Pereira, Costa, Silla, Neurocomputing 383, 2020 (10.1016/j.neucom.2019.11.076), and the authors' code.
        Deviations: neighbours are found by the features only, where the authors' code includes the label columns;
        `mutual`, `protect_minority` and the other label distances are additions.
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

    def _keep(self, labels: LabelArray, neighbors: RowIndices) -> RowMask:
        self.threshold_ = _auto_threshold(labels) if self.threshold == "auto" else float(self.threshold)
        distances = label_distances(labels, neighbors, self.label_distance)[:, 0]
        removed: RowMask = exceeds(distances, self.threshold_).numpy()
        if self.mode == "undersampling":
            removed &= labels[:, majority_labels(labels)].any(axis=1)
        if self.mutual:
            nearest = neighbors[:, 0]
            removed &= nearest[nearest] == np.arange(len(labels))
        if self.protect_minority:
            removed &= ~labels[:, minority_labels(labels)].any(axis=1)
        return ~removed


def _auto_threshold(labels: LabelArray) -> float:
    balance = 1 / sqrt(mean_ir(labels))
    if is_greater(balance, 0.5) or is_greater(scumble(labels), 0.3):
        return 0.5
    return 0.3 if is_greater(balance, 0.3) else 0.15
