"""Random removal of rows by weights that depend on the labels of their neighbours: MLUL."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric.under_sampling._base_neighbor_sampler import BaseNeighborSampler
from mlmetric.under_sampling._base_sampler import num_rows_of
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices, RowMask


class MLUL(BaseNeighborSampler):
    """Sample the rows to keep by local label imbalance: multi-label undersampling by local imbalance (MLUL).

    For each label, the minority value is the rarer of its two values, 0 or 1; if both are equally frequent, it is 1.
    The score of a row with the minority value is the fraction of its neighbours with the other value. A row is an
    outlier of the label, with score 0, if all its neighbours have the other value. The scores of each label are scaled
    to a sum of 1, so that the labels count equally. The weight of a row is the sum of its own scores plus its mean
    effect on the rows that have it as a neighbour. The effect on such a row is the sum of that row's scores, each with
    a positive sign if both rows have the same value for the label and with a negative sign otherwise. If a weight is
    negative, all weights are shifted so that the lowest is 0.

    The rows to keep are sampled one at a time without replacement, with probabilities proportional to the weights. Rows
    with weight 0 are kept, at random, only if there are too few other rows.

    Args:
        percentage: Percentage of the rows to remove, at least 0 and below 100, rounded down to whole rows. 0 removes no
            rows.
        n_neighbors: Number of nearest neighbours of each row, >= 1.
        random_state: Seed or `numpy.random.RandomState` of the random choices. None uses numpy's global random state,
            which `numpy.random.seed` seeds.

    Attributes:
        weights_: Weight of each row, float64 of shape `(N,)`, >= 0.
        sample_indices_: Indices of the rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are not more rows than `n_neighbors`.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import MLUL
        >>> X = np.array([[0.0], [1.0], [2.1], [3.3], [9.0], [9.5], [10.1], [10.8]])
        >>> y = np.array([[1], [1], [0], [0], [0], [0], [0], [1]])
        >>> sampler = MLUL(n_neighbors=2, percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.weights_.round(3)  # row 7 is an outlier; rows 0 and 1 support each other; row 2 does not
        array([1.333, 1.   , 0.   , 0.333, 0.333, 0.333, 0.333, 0.333])
        >>> sampler.sample_indices_
        array([0, 1, 4, 6])

    Source:
        Liu, Blekas, Tsoumakas, Pattern Recognition 122, 2022 (10.1016/j.patcog.2021.108294). Deviation from the
        authors' code: there an outlier of a label has a negative effect on all rows that have it as a neighbour,
        including rows with its own value; here the effect on these rows is positive.
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

    def _keep(self, labels: LabelArray, neighbors: RowIndices) -> RowMask:
        random_state = check_random_state(self.random_state)
        self.weights_ = _weights(labels, neighbors)
        # The rows with the smallest of these times are a weighted sample without replacement.
        with np.errstate(divide="ignore"):
            times = random_state.standard_exponential(len(labels)) / self.weights_
        order = np.lexsort((random_state.permutation(len(labels)), times))
        kept = np.zeros(len(labels), dtype=bool)
        kept[order[: len(labels) - num_rows_of(self.percentage, len(labels))]] = True
        return kept


def _weights(labels: LabelArray, neighbors: RowIndices) -> npt.NDArray[np.float64]:
    num_rows, k = neighbors.shape
    opposite = sum((labels[numbers] != labels).astype(np.int64) for numbers in neighbors.T)
    minority_value = 2 * labels.sum(axis=0, dtype=np.int64) <= num_rows
    informative = (labels == minority_value) & (opposite < k)
    scores = np.where(informative, opposite, 0).astype(np.float64)
    totals = scores.sum(axis=0)
    scores /= np.where(totals > 0, totals, 1)
    own = scores.sum(axis=1)

    effects, num_effects = np.zeros(num_rows), np.bincount(neighbors.ravel(), minlength=num_rows)
    for numbers in neighbors.T:
        agreeing = np.einsum("ij,ij->i", scores, labels[numbers] == labels)
        effects += np.bincount(numbers, weights=2 * agreeing - own, minlength=num_rows)
    weights: npt.NDArray[np.float64] = own + effects / np.maximum(num_effects, 1)
    weights -= min(0.0, weights.min())
    # Weights that differ from the lowest one by rounding are 0 too.
    weights[weights < 1e-12 * weights.max()] = 0
    return weights
