"""Rows of a label matrix: the labels of each row as booleans, label sets as sortable values, removal of random rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlmetric.labels import LabelsLike, label_array


def has_label(labels: LabelsLike) -> npt.NDArray[np.bool_]:
    """Check a label matrix, and return whether each row has each label, shape `(N, L)`: where the entry is above 0.

    Missing labels count as absent.
    """
    return np.asarray(label_array(labels, allow_missing=True) > 0)


def label_set_keys(labels: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Pack each row of a multi-hot matrix `(N, L)`, L > 0, into one value, shape `(N,)`; equal for equal label sets.

    Eight labels take one byte, so these values sort many times faster than rows of numbers.
    """
    packed = np.packbits(labels != 0, axis=1)
    return packed.view(np.dtype((np.void, packed.shape[1]))).ravel()


class RandomRowRemover:
    """Remove random rows one at a time, and count the labels of the remaining rows.

    The rows of each label are permuted once. The first remaining row of the permutation is then equally likely to be
    any of the remaining rows with that label.

    Args:
        labels: Multi-hot, shape `(N, L)`.
        removable: Labels that `remove_row_with` will be called with.
        random_state: Random state of the permutations.

    Attributes:
        remaining: Whether each row remains, bool, shape `(N,)`.
        counts: Number of remaining rows with each label, int64, shape `(L,)`.
    """

    def __init__(
        self, labels: npt.NDArray[np.uint8], removable: Iterable[int], random_state: np.random.RandomState
    ) -> None:
        self._labels = labels
        self.remaining = np.ones(len(labels), dtype=bool)
        self.counts = labels.sum(axis=0, dtype=np.int64)
        self._permutations: dict[int, Iterator[int]] = {
            int(label): iter(random_state.permutation(np.flatnonzero(labels[:, label])).tolist()) for label in removable
        }

    def remove_row_with(self, label: int) -> None:
        """Remove one of the remaining rows with `label`, each equally likely; at least one must remain."""
        row = next(row for row in self._permutations[label] if self.remaining[row])
        self.remaining[row] = False
        self.counts -= self._labels[row]
