"""Synthetic rows between neighbours with the same minority label: MLSMOTE."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from mlmetric.imbalance import mean_ir
from mlmetric.imbalance._imbalance_ratios import is_greater
from mlmetric.neighbors import kneighbors
from mlmetric.over_sampling._base_over_sampler import BaseOverSampler, SyntheticRows
from mlmetric.over_sampling._interpolation import interpolate
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices


class MLSMOTE(BaseOverSampler):
    """Add a row next to each row with a minority label: multi-label synthetic minority oversampling (MLSMOTE).

    The labels are processed in order. If the imbalance ratio of a label is above the MeanIR of the input, one row is
    made from each row with the label: a random one of its nearest neighbours among the rows with the label is chosen,
    and each feature of the new row is a random point between the values of the two rows. The labels of the new row
    depend on the labels of the row and of all its neighbours, by `label_rule`. The imbalance ratio of the next label,
    and the rows with that label, include the rows added so far.

    The number of rows added depends on the data: one for each row of each minority label. It can exceed the number of
    rows of the input. Most of the time is spent on a neighbour search among the rows of each minority label.

    A label with at most `n_neighbors` rows has fewer neighbours. The sampler warns if a minority label has only one
    row, since no row can be made from it, if MeanIR increased, or if more rows were added than the input has.

    Args:
        n_neighbors: Number of nearest neighbours of each row, >= 1.
        label_rule: Labels of a new row: those that at least half of the row and its neighbours have (`"ranking"`), that
            at least one of them has (`"union"`), or that all of them have (`"intersection"`).
        random_state: Seed or `numpy.random.RandomState` of the random choices. None uses numpy's global random state,
            which `numpy.random.seed` seeds.

    Attributes:
        parent_indices_: For each synthetic row, the indices of the two rows of the result that it lies between, intp of
            shape `(n, 2)`: the row that it was made from, and the neighbour. Indices below N are rows of the input.
        skipped_labels_: Indices of the minority labels with one row, from which no row can be made.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        added_per_label_: Positives that each label gained, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.over_sampling import MLSMOTE
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [9.0], [10.0]])
        >>> y = np.array([[1, 0, 0]] * 4 + [[1, 1, 0]] * 2 + [[0, 0, 1], [0, 1, 1]])
        >>> sampler = MLSMOTE(random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(X, y)  # MeanIR is 2, so label 2 is the minority label
        >>> X_resampled[8:].round(2)
        array([[9.55],
               [9.28]])
        >>> y_resampled[8:]
        array([[0, 1, 1],
               [0, 1, 1]])
        >>> sampler.parent_indices_
        array([[6, 7],
               [7, 6]])

    Source:
        Charte, Rivera, del Jesus, Herrera, Knowledge-Based Systems 89, 2015 (10.1016/j.knosys.2015.07.019). As in the
        paper's pseudo-code, a random number is drawn for each feature, and rows added for one label count for the next.
        `"ranking"` follows the paper's text (at least half); its pseudo-code requires more than half. Deviations:
        nominal features are not supported, and neighbours are found by Euclidean distance. The paper does not define
        labels with fewer than `n_neighbors + 1` rows.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "label_rule": [StrOptions({"ranking", "union", "intersection"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        label_rule: Literal["ranking", "union", "intersection"] = "ranking",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__()
        self.n_neighbors = n_neighbors
        self.label_rule = label_rule
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray, *, has_class_ids: bool, **context: Any) -> SyntheticRows:
        random_state = check_random_state(self.random_state)
        mean = mean_ir(labels)
        rows = _GrowingRows(X, labels)
        self.skipped_labels_: list[int] = []
        for label in range(labels.shape[1]):
            count = rows.counts[label]
            if not count or not is_greater(rows.counts.max() / count, mean):
                continue
            if count == 1:
                self.skipped_labels_.append(label)
                continue
            indices, features, bag_labels = rows.with_label(label)
            k = min(int(self.n_neighbors), len(indices) - 1)
            neighbors = kneighbors(features, k)[1]
            row = np.arange(len(indices))
            references = neighbors[row, random_state.randint(k, size=len(indices))]
            values = interpolate(features, row, references, random_state)[0]
            new_labels = self._labels_of(bag_labels, neighbors)
            rows.add(SyntheticRows(values, new_labels, np.stack([indices, indices[references]], axis=1)))
        return rows.added()

    def _labels_of(self, labels: LabelArray, neighbors: RowIndices) -> LabelArray:
        counts = labels.astype(np.int32)
        for numbers in neighbors.T:
            counts += labels[numbers]
        size = neighbors.shape[1] + 1
        smallest = {"ranking": (size + 1) // 2, "union": 1, "intersection": size}[self.label_rule]
        new_labels: LabelArray = (counts >= smallest).astype(np.uint8)
        return new_labels

    def _record_statistics(self, labels: LabelArray, rows: SyntheticRows) -> list[str]:
        problems = super()._record_statistics(labels, rows)
        if self.skipped_labels_:
            problems.append(f"added no rows for the minority labels {self.skipped_labels_}, which have one row each.")
        return problems


class _GrowingRows:
    """The rows of the input followed by those added, with access to the rows of a label."""

    def __init__(self, X: Any, labels: LabelArray) -> None:
        self.counts: npt.NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
        self._input = X, labels
        by_label = sparse.csc_array(labels)
        self._rows_of_input = np.split(by_label.indices.astype(np.intp), by_label.indptr[1:-1])
        self._added: list[SyntheticRows] = []
        self._added_counts: list[npt.NDArray[np.int64]] = []

    def with_label(self, label: int) -> tuple[RowIndices, Any, LabelArray]:
        """Return the indices, the features and the labels of all rows with a label."""
        X, labels = self._input
        found = np.sort(self._rows_of_input[label])
        indices, features, all_labels = [found], [X[found].astype(np.float64)], [labels[found]]
        start = len(labels)
        for part, counts in zip(self._added, self._added_counts, strict=True):
            if counts[label]:
                found = np.flatnonzero(part.labels[:, label])
                indices.append(start + found)
                features.append(part.features[found])
                all_labels.append(part.labels[found])
            start += len(part.labels)
        return np.concatenate(indices), _stack(features), np.concatenate(all_labels)

    def add(self, rows: SyntheticRows) -> None:
        self._added.append(rows)
        self._added_counts.append(rows.labels.sum(axis=0, dtype=np.int64))
        self.counts = self.counts + self._added_counts[-1]

    def added(self) -> SyntheticRows:
        """Return all rows added."""
        X, labels = self._input
        nothing = SyntheticRows(X[:0].astype(np.float64), labels[:0], np.empty((0, 2), dtype=np.intp))
        features, all_labels, parents = zip(nothing, *self._added, strict=True)
        return SyntheticRows(_stack(list(features)), np.concatenate(all_labels), np.concatenate(parents))


def _stack(parts: list[Any]) -> Any:
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)
