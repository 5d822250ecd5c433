"""Removal of rows whose neighbours carry other labels, but for minority labels: MLeNN."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from mlmetric.imbalance import minority_labels
from mlmetric.under_sampling._data import LabelArray, Mask, Rows
from mlmetric.under_sampling._neighbor_base import BaseNeighborSampler, above, label_distances


class MLeNN(BaseNeighborSampler):
    """Remove rows that at least half of their neighbours disagree with: multi-label edited nearest neighbours (MLeNN).

    A row with a minority label stays. Of the others those go of which at least half of the neighbours carry label sets
    at a Dice distance above a threshold; all go at once. Two rows without labels have distance 0, one beside a row with
    labels 1.

    Args:
        n_neighbors: Number of neighbours that are asked, >= 1.
        threshold: Label distance in [0, 1] above which a neighbour disagrees.

    Attributes:
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are not more rows than `n_neighbors`, or every row would go.

    Examples:
        >>> import numpy as np
        >>> X = np.array([[0], [1], [2], [3], [10], [11], [12], [13], [14]])
        >>> y = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]]
        ...              + [[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
        >>> sampler = MLeNN()
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.sample_indices_  # all three neighbours of row 2 disagree, and of row 6, which has a minority label
        array([0, 1, 3, 4, 5, 6, 7, 8])

    Source:
        Charte, Rivera, del Jesus, Herrera, IDEAL 2014 (10.1007/978-3-319-10840-7_1), where the distance is called
        adjusted Hamming distance and 3 neighbours and 0.75 are used.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, *, n_neighbors: int = 3, threshold: float = 0.75) -> None:
        super().__init__()
        self.n_neighbors = n_neighbors
        self.threshold = threshold

    def _num_neighbors(self) -> int:
        return int(self.n_neighbors)

    def _keep(self, labels: LabelArray, neighbors: Rows) -> Mask:
        disagreeing = above(label_distances(labels, neighbors, "dice"), self.threshold).sum(axis=1)
        kept: Mask = 2 * disagreeing < neighbors.shape[1]
        kept |= labels[:, minority_labels(labels)].any(axis=1)
        return kept
