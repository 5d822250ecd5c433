"""Removal of rows that harm their neighbourhood, by chance: MLUL."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric.under_sampling._base import removal_budget
from mlmetric.under_sampling._data import LabelArray, Mask, Rows
from mlmetric.under_sampling._neighbor_base import BaseNeighborSampler


class MLUL(BaseNeighborSampler):
    """Keep rows by what they tell of their neighbourhood: multi-label undersampling by local label imbalance (MLUL).

    For each label the rarer of its two values, carried or not, is the minority value; carried, where both are as
    frequent. A row that has it scores the share of its neighbours that have the other value; if all have, it is an
    outlier and scores nothing. The scores of a label are scaled to a sum of 1, so that labels count alike, and those of
    a row are added up. Then a row is judged by the rows that count it among their neighbours: for each of these, and
    each label that one scores for, its score is added where both have the same value and subtracted where not; the
    mean over these rows joins the row's own sum. That is its weight.

    As many rows as the budget says are removed: the others are drawn one after the other with probability proportional
    to their weights, which are moved up to 0 where some are negative. Rows with weight 0 are kept, at random, only
    where there are no others left.

    Args:
        percentage: Share of the rows to remove, in per cent, 0 or more and below 100; rounded down to whole rows. 0
            removes none.
        n_neighbors: Number of neighbours, >= 1.
        random_state: Seed or `numpy.random.RandomState` of the draws.

    Attributes:
        weights_: Weight of each row, float64 of shape `(N,)`, >= 0.
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are not more rows than `n_neighbors`.

    Examples:
        >>> X = np.array([[0.0], [1.0], [2.1], [3.3], [9.0], [9.5], [10.1], [10.8]])
        >>> y = np.array([[1], [1], [0], [0], [0], [0], [0], [1]])
        >>> sampler = MLUL(n_neighbors=2, percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.weights_.round(3)  # row 7 is an outlier; rows 0 and 1 help each other; row 2 is in their way
        array([1.333, 1.   , 0.   , 0.333, 0.333, 0.333, 0.333, 0.333])
        >>> sampler.sample_indices_
        array([0, 1, 4, 6])

    Source:
        Liu, Blekas, Tsoumakas, Pattern Recognition 122, 2022 (10.1016/j.patcog.2021.108294). Deviation from the
        authors' program: there a row that is an outlier of a label harms every row that counts it, those of its own
        value too; here it helps these.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "percentage": [Interval(Real, 0, 100, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        percentage: float = 25,
        n_neighbors: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__()
        self.percentage = percentage
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def _num_neighbors(self) -> int:
        return int(self.n_neighbors)

    def _keep(self, labels: LabelArray, neighbors: Rows) -> Mask:
        random_state = check_random_state(self.random_state)
        self.weights_ = _weights(labels, neighbors)
        # The smallest of such times are those of rows drawn one after the other by weight.
        with np.errstate(divide="ignore"):
            times = random_state.standard_exponential(len(labels)) / self.weights_
        order = np.lexsort((random_state.permutation(len(labels)), times))
        kept = np.zeros(len(labels), dtype=bool)
        kept[order[: len(labels) - removal_budget(len(labels), self.percentage)]] = True
        return kept


def _weights(labels: LabelArray, neighbors: Rows) -> npt.NDArray[np.float64]:
    num_rows, k = neighbors.shape
    opposite = sum((labels[numbers] != labels).astype(np.int64) for numbers in neighbors.T)
    minority_value = 2 * labels.sum(axis=0, dtype=np.int64) <= num_rows
    informative = (labels == minority_value) & (opposite < k)
    scores = np.where(informative, opposite, 0).astype(np.float64)
    totals = scores.sum(axis=0)
    scores /= np.where(totals > 0, totals, 1)
    own = scores.sum(axis=1)

    harm, num_counting = np.zeros(num_rows), np.bincount(neighbors.ravel(), minlength=num_rows)
    for numbers in neighbors.T:
        agreeing = np.einsum("ij,ij->i", scores, labels[numbers] == labels)
        harm += np.bincount(numbers, weights=own - 2 * agreeing, minlength=num_rows)
    weights: npt.NDArray[np.float64] = own - harm / np.maximum(num_counting, 1)
    weights -= min(0.0, weights.min())
    # The lowest are 0 alike, whatever their sums have rounded to.
    weights[weights < 1e-12 * weights.max()] = 0
    return weights
