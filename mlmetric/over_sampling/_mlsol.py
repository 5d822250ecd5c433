"""Synthetic rows near difficult rows, with labels that depend on the neighbours of their parents: MLSOL."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric.over_sampling._base_over_sampler import BaseOverSampler, SyntheticRows
from mlmetric.over_sampling._interpolation import interpolate
from mlmetric.under_sampling._base_neighbor_sampler import dense_tensor, find_neighbors
from mlmetric.under_sampling._base_sampler import num_rows_of
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices

_MAJORITY, _SAFE, _BORDERLINE, _RARE, _OUTLIER = range(5)
# Largest position of a new row, 0 at the row with the minority value and 1 at the other, with the minority value.
_THRESHOLDS = np.array([np.nan, 0.5, 0.75, 1 + 1e-5, -1e-5])


class MLSOL(BaseOverSampler):
    """Add rows where the neighbours of rare labels have other labels: oversampling by local labels (MLSOL).

    For each label, the minority value is the rarer of its two values, 0 or 1; if both are equally frequent, it is 1.
    The score of a row with the minority value is the fraction of its neighbours with the other value, or 0 if all of
    them have it. The scores of each label are scaled to a sum of 1, so that the labels count equally, and the weight of
    a row is the sum of its scores.

    Each synthetic row is made from a row sampled with probabilities proportional to the weights, with replacement, and
    a random one of its neighbours: each feature is a random point between the values of the two rows. If the two rows
    have the same value of a label, the new row has it too. Otherwise the new row has the minority value if it is near
    enough to the row with that value. Its position is its distance to that row divided by the sum of its distances to
    both rows, and the limit depends on the fraction of neighbours of that row with the other value:

    - safe, a fraction below 0.3: position up to 0.5.
    - borderline, from 0.3 to below 0.7: position up to 0.75.
    - rare, from 0.7 to below 1: always. A rare row with a safe or borderline neighbour is borderline instead.
    - outlier, 1: never.

    If all weights are 0, no rows are added, and the sampler warns. It also warns if MeanIR increased, or if more rows
    were added than the input has.

    Args:
        percentage: Number of rows to add, in percent of the rows of the input, >= 0, rounded down to whole rows.
        n_neighbors: Number of nearest neighbours of each row, >= 1.
        random_state: Seed or `numpy.random.RandomState` of the random choices. None uses numpy's global random state,
            which `numpy.random.seed` seeds.

    Attributes:
        weights_: Weight of each row of the input, float64 of shape `(N,)`, >= 0.
        parent_indices_: For each synthetic row, the indices of the two rows of the input that it lies between, intp of
            shape `(n, 2)`: the sampled row, and the neighbour.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        added_per_label_: Positives that each label gained, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Raises:
        ValueError: In `fit_resample`, if there are not more rows than `n_neighbors`.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.over_sampling import MLSOL
        >>> X = np.array([[0.0], [1.0], [2.1], [3.3], [9.0], [9.5], [10.1], [10.8]])
        >>> y = np.array([[1], [1], [0], [0], [0], [0], [0], [1]])
        >>> sampler = MLSOL(n_neighbors=2, percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
        >>> sampler.weights_  # rows 0 and 1 have a neighbour of each value; row 7 is an outlier
        array([0.5, 0.5, 0. , 0. , 0. , 0. , 0. , 0. ])
        >>> sampler.parent_indices_
        array([[1, 2],
               [1, 2],
               [1, 2],
               [1, 0]])
        >>> np.hstack([X_resampled, y_resampled])[8:].round(2)  # row 1 is borderline: label 1 up to 1.825
        array([[1.48, 1.  ],
               [1.98, 0.  ],
               [2.06, 0.  ],
               [0.62, 1.  ]])

    Source:
        Liu, Tsoumakas, ECML PKDD 2019 (10.1007/978-3-030-46147-8_11, arXiv 1905.00609). The minority value of a label
        that most rows have is 0, and the position between two equal rows is 0.5, as in the authors' code. Addition: if
        `y` contains class ids and a row would have no class or both, it has the class of the nearer of the two rows.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "percentage": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        percentage: float = 30,
        n_neighbors: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__()
        self.percentage = percentage
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def fit_resample(self, X: Any, y: Any, *, neighbors: Any = None) -> tuple[Any, Any]:
        """Add synthetic rows.

        Args:
            X: Features of shape `(N, d)`, finite numbers: an array, a tensor, a list, a scipy sparse matrix or a pandas
                data frame.
            y: Multi-hot labels of shape `(N, L)`, of any of these types, or class ids of shape `(N,)`.
            neighbors: Indices of the nearest other rows of each row, nearest first, integers of shape `(N, K)`, for
                example `kneighbors(X, K)[1]`, or neighbours by another metric. One search with the largest K can be
                used for several samplers. None searches for the neighbours.

        Returns:
            `X` and `y` with the synthetic rows appended, with the type, the dtype and, for data frames, the columns of
            the input. Values of integer columns are rounded. In data frames, a synthetic row has the index label of the
            row that it was made from.

        Raises:
            TypeError: If `y` contains lists or sets of label names, or `X` or `y` is of another type.
            ValueError: If a parameter is out of range, `X` contains NaN or infinity, `y` contains NaN, `y` is neither
                multi-hot nor class ids of at least two classes, the lengths differ, there are too few rows for the
                number of neighbours, or `neighbors` has a wrong shape or invalid indices.
        """
        return self._resample(X, y, neighbors=neighbors, tensor=dense_tensor(X))

    def _fit_resample(
        self,
        X: Any,
        labels: LabelArray,
        *,
        has_class_ids: bool = False,
        neighbors: Any = None,
        tensor: torch.Tensor | None = None,
        **context: Any,
    ) -> SyntheticRows:
        random_state = check_random_state(self.random_state)
        searched = X if tensor is None else tensor
        found = find_neighbors(self, searched, len(labels), int(self.n_neighbors), neighbors)
        minority_values = (2 * labels.sum(axis=0, dtype=np.int64) <= len(labels)).astype(np.uint8)
        self.weights_, types = _weights_and_types(labels, found, minority_values)
        total = self.weights_.sum()
        num_new = num_rows_of(self.percentage, len(labels)) if total > 0 else 0
        starts = np.empty(0, dtype=np.intp)
        if num_new:
            starts = random_state.choice(len(labels), size=num_new, p=self.weights_ / total)
        ends = found[starts, random_state.randint(found.shape[1], size=num_new)]
        features, positions = interpolate(X, starts, ends, random_state)
        new_labels = _labels_between(labels, types, minority_values, starts, ends, positions)
        if has_class_ids:
            undecided = new_labels.sum(axis=1) != 1
            nearer = np.where(positions <= 0.5, starts, ends)
            new_labels[undecided] = labels[nearer[undecided]]
        return SyntheticRows(features, new_labels, np.stack([starts, ends], axis=1).astype(np.intp))

    def _record_statistics(self, labels: LabelArray, rows: SyntheticRows) -> list[str]:
        problems = super()._record_statistics(labels, rows)
        if self.percentage and not self.weights_.any():
            problems.append(
                "added no rows: no row with the minority value of a label has neighbours of both values. Choose a "
                "larger `n_neighbors`."
            )
        return problems


def _weights_and_types(
    labels: LabelArray, neighbors: RowIndices, minority_values: LabelArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """Return the weight of each row, and the type of each row for each label, shape `(N, L)`."""
    num_rows, k = neighbors.shape
    # Only the entries with the minority value of their label matter, usually few.
    rows, columns = np.nonzero(labels == minority_values)
    opposite = np.zeros(len(rows), dtype=np.int64)
    for numbers in neighbors.T:
        opposite += labels[numbers[rows], columns] != minority_values[columns]

    scores = np.where(opposite < k, opposite, 0)
    totals = np.bincount(columns, weights=scores, minlength=labels.shape[1])
    shares = scores / np.where(totals > 0, totals, 1)[columns]
    weights = np.bincount(rows, weights=shares, minlength=num_rows).astype(np.float64)

    types: npt.NDArray[np.uint8] = np.zeros(labels.shape, dtype=np.uint8)
    # In integers, so that a fraction of 0.3 or 0.7 is exact.
    kinds = [10 * opposite < 3 * k, 10 * opposite < 7 * k, opposite < k]
    types[rows, columns] = np.select(kinds, [_SAFE, _BORDERLINE, _RARE], default=_OUTLIER)
    rare_rows, rare_columns = np.nonzero(types == _RARE)
    while len(rare_rows):
        around = types[neighbors[rare_rows], rare_columns[:, None]]
        eased = ((around == _SAFE) | (around == _BORDERLINE)).any(axis=1)
        if not eased.any():
            break
        types[rare_rows[eased], rare_columns[eased]] = _BORDERLINE
        rare_rows, rare_columns = rare_rows[~eased], rare_columns[~eased]
    return weights, types


def _labels_between(
    labels: LabelArray,
    types: npt.NDArray[np.uint8],
    minority_values: LabelArray,
    starts: RowIndices,
    ends: RowIndices,
    positions: npt.NDArray[np.float64],
) -> LabelArray:
    """Return the labels of rows that each lie between two rows, given their positions, 0 at the first row."""
    result = labels[starts]
    pairs, columns = np.nonzero(result != labels[ends])
    wanted = minority_values[columns]
    is_start = labels[starts[pairs], columns] == wanted
    minority_rows = np.where(is_start, starts[pairs], ends[pairs])
    distances = np.where(is_start, positions[pairs], 1 - positions[pairs])
    has_minority_value = distances <= _THRESHOLDS[types[minority_rows, columns]]
    result[pairs, columns] = np.where(has_minority_value, wanted, 1 - wanted)
    return result
