"""Stratified cross-validation of multi-label data, for scikit-learn's argument `cv`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.utils import check_random_state

from mlmetric.data._label_balance import balance_labels
from mlmetric.data._stratification import Integers, multi_hot_rows, stratify
from mlmetric.labels import LabelsLike


class MultiLabelStratifiedKFold(KFold):
    """K-fold cross-validation that preserves the proportion of each label in every fold.

    Each row is in exactly one test fold; the sizes of the folds differ by at most one. The share of a label in a fold
    is `1 / n_splits` of its rows. The number of its rows in the fold differs from this share by at most one wherever
    the search finds such folds; for some label matrices there are none. Rows without labels are also spread evenly.

    Args:
        n_splits: Number of folds, at least 2.
        shuffle: Whether to shuffle the rows first. Without shuffling, the folds depend only on the labels and the order
            of the rows.
        random_state: Seed or `numpy.random.RandomState` of the shuffle; None for NumPy's global generator. Requires
            `shuffle=True`.

    Raises:
        TypeError: If `shuffle` is not a bool.
        ValueError: If `n_splits` is not an integer of at least 2, or `random_state` is given without `shuffle`.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.data import MultiLabelStratifiedKFold
        >>> y = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 1], [0, 0]])
        >>> for train, test in MultiLabelStratifiedKFold(n_splits=2).split(np.zeros((6, 1)), y):
        ...     print(test, y[test].sum(axis=0))
        [1 2 4] [2 2]
        [0 3 5] [2 1]

    Source:
        Iterative stratification as in `stratified_split` (Sechidis, Tsoumakas, Vlahavas, "On the stratification of
        multi-label data", ECML PKDD 2011), then a tabu search that swaps rows between folds.
    """

    def __init__(
        self, n_splits: int = 5, *, shuffle: bool = False, random_state: int | np.random.RandomState | None = None
    ) -> None:
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)

    def split(self, X: Any, y: LabelsLike, groups: Any = None) -> Iterator[tuple[Integers, Integers]]:
        """Generate the training and test row indices of each fold.

        Args:
            X: N samples; only their number is used.
            y: Multi-hot labels, shape `(N, L)`: an array, a tensor, a list of rows, a scipy sparse matrix or a data
                frame. A missing label, NaN, is treated as absent.
            groups: Ignored, with a warning; it exists for compatibility with scikit-learn.

        Yields:
            The training indices and the test indices, int64, ascending.

        Raises:
            TypeError: If `y` does not contain numbers.
            ValueError: If there are more folds than rows, `X` and `y` differ in length, `y` is not two-dimensional, or
                an entry is not 0, 1 or NaN.
        """
        splits: Iterator[tuple[Integers, Integers]] = super().split(X, y, groups)
        return splits

    def _iter_test_indices(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Integers]:
        labels = _labels_of(y, "StratifiedKFold")
        num_rows = labels.shape[0]
        order = np.arange(num_rows)
        if self.shuffle:
            check_random_state(self.random_state).shuffle(order)
        sizes = np.full(self.n_splits, num_rows // self.n_splits)
        sizes[: num_rows % self.n_splits] += 1
        fold_of = _stratified_folds(labels[order], sizes)
        for fold in range(self.n_splits):
            yield order[fold_of == fold]


class MultiLabelStratifiedShuffleSplit(ShuffleSplit):
    """Random splits into a training and a test part that preserve the proportion of each label.

    The splits are independent draws: a row can be in several test parts. The share of a label in a part is the number
    of its rows times the part's fraction of all rows. The number of its rows in the part differs from this share by at
    most one wherever the search finds such a split; for some label matrices there is none.

    Args:
        n_splits: Number of splits.
        test_size: Fraction of the rows (float) or number of rows (int) in the test part; None for the complement of
            `train_size`, or 0.1 if both are None.
        train_size: Fraction of the rows (float) or number of rows (int) in the training part; None for the complement
            of `test_size`.
        random_state: Seed or `numpy.random.RandomState` of the draws; None for NumPy's global generator.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.data import MultiLabelStratifiedShuffleSplit
        >>> y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 25)
        >>> splitter = MultiLabelStratifiedShuffleSplit(n_splits=3, test_size=0.2, random_state=0)
        >>> [y[test].sum(axis=0).tolist() for train, test in splitter.split(np.zeros((100, 1)), y)]
        [[10, 10], [10, 10], [10, 10]]

    Source:
        Iterative stratification as in `stratified_split` (Sechidis, Tsoumakas, Vlahavas, "On the stratification of
        multi-label data", ECML PKDD 2011), then a tabu search that swaps rows between parts.
    """

    def __init__(
        self,
        n_splits: int = 10,
        *,
        test_size: float | int | None = None,
        train_size: float | int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(n_splits=n_splits, test_size=test_size, train_size=train_size, random_state=random_state)

    def split(self, X: Any, y: LabelsLike, groups: Any = None) -> Iterator[tuple[Integers, Integers]]:
        """Generate the training and test row indices of each split.

        Args:
            X: N samples; only their number is used.
            y: Multi-hot labels, shape `(N, L)`: an array, a tensor, a list of rows, a scipy sparse matrix or a data
                frame. A missing label, NaN, is treated as absent.
            groups: Ignored, with a warning; it exists for compatibility with scikit-learn.

        Yields:
            The training indices and the test indices, int64, in random order.

        Raises:
            TypeError: If `y` does not contain numbers.
            ValueError: If the sizes do not fit the number of rows, `X` and `y` differ in length, `y` is not
                two-dimensional, or an entry is not 0, 1 or NaN.
        """
        splits: Iterator[tuple[Integers, Integers]] = super().split(X, y, groups)
        return splits

    def _iter_indices(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Integers, Integers]]:
        sized = ShuffleSplit(1, test_size=self.test_size, train_size=self.train_size, random_state=0)
        num_train, num_test = map(len, next(sized.split(X)))
        labels = _labels_of(y, "StratifiedShuffleSplit")
        num_rows = labels.shape[0]
        sizes = np.array([num_train, num_test, num_rows - num_train - num_test])
        shares = sizes[:, None] / num_rows * np.bincount(labels.indices, minlength=labels.shape[1])
        random = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            order = random.permutation(num_rows)
            part_of = stratify(labels[order], sizes, generator=None)
            part_of = balance_labels(labels[order], part_of, shares)
            yield order[part_of == 0], order[part_of == 1]


def _labels_of(y: Any, single_label: str) -> sparse.csr_array:
    """Read `y`; if it has one dimension, raise an error that names scikit-learn's class for one label per row."""
    if y is None:
        raise ValueError("`y` must be a label matrix of shape (N, L), got None.")
    ndim = getattr(y, "ndim", None)
    if ndim == 1 or (ndim is None and len(y) and isinstance(y[0], str | int | float | np.generic)):
        raise ValueError(
            f"`y` must be a label matrix of shape (N, L), got shape ({len(y)},). For one class per row, use "
            f"`sklearn.model_selection.{single_label}`."
        )
    return multi_hot_rows(y, "y")


def _stratified_folds(labels: sparse.csr_array, sizes: Integers) -> Integers:
    """Assign rows to folds, each label within one row of an equal share and, if possible, of a share by fold size."""
    counts = np.bincount(labels.indices, minlength=labels.shape[1])
    equal = np.tile(counts / len(sizes), (len(sizes), 1))
    by_size = counts * (sizes[:, None] / labels.shape[0])
    fold_of = balance_labels(labels, stratify(labels, sizes, generator=None), equal, by_size)
    return balance_labels(labels, fold_of, equal)
