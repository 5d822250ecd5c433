"""Removal of rows whose neighbours have other labels, except rows with minority labels: MLeNN."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from mlmetric.imbalance import minority_labels
from mlmetric.similarity import exceeds
from mlmetric.under_sampling._base_neighbor_sampler import BaseNeighborSampler, label_distances
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices, RowMask


class MLeNN(BaseNeighborSampler):
    """Remove rows whose labels differ from their neighbours' labels: multi-label edited nearest neighbours (MLeNN).

    MLeNN keeps each row with a minority label. It removes each other row for which at least half of the nearest
    neighbours have a label set at a Dice distance above `threshold`. Removed rows still count as neighbours of other
    rows. Two rows without labels have distance 0; a row without labels and a row with labels have distance 1.

    Args:
        n_neighbors: Number of nearest neighbours of each row, >= 1.
        threshold: Label distance in [0, 1] above which the labels of a neighbour differ.

    Attributes:
        sample_indices_: Indices of the rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are not more rows than `n_neighbors`, or all rows would be removed.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import MLeNN
        >>> X = np.array([[0], [1], [2], [3], [10], [11], [12], [13], [14]])
        >>> y = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]]
        ...              + [[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
        >>> sampler = MLeNN()
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.sample_indices_  # all three neighbours of rows 2 and 6 differ, but row 6 has a minority label
        array([0, 1, 3, 4, 5, 6, 7, 8])

    Source:
        Charte, Rivera, del Jesus, Herrera, IDEAL 2014 (10.1007/978-3-319-10840-7_1), which calls the distance
        adjusted Hamming distance and uses 3 neighbours and a threshold of 0.75.
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

    def _keep(self, labels: LabelArray, neighbors: RowIndices) -> RowMask:
        num_differing = exceeds(label_distances(labels, neighbors, "dice"), self.threshold).sum(dim=1)
        kept: RowMask = (2 * num_differing < neighbors.shape[1]).numpy()
        kept |= labels[:, minority_labels(labels)].any(axis=1)
        return kept
