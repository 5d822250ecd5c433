"""Removal of rows one after the other, each drawn from those that carry a label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from mlmetric.under_sampling._data import LabelArray


class CarrierDraws:
    """Rows that are still there, and the count of each label among them.

    Each label has its carriers in an order of its own, drawn once: the first that is still there is as likely to be any
    of those that are.

    Args:
        labels: Multi-hot, shape `(N, L)`.
        drawn: Labels whose carriers will be drawn.
        random_state: Of the orders.
    """

    def __init__(self, labels: LabelArray, drawn: Iterable[int], random_state: np.random.RandomState) -> None:
        self.labels = labels
        self.alive = np.ones(len(labels), dtype=bool)
        self.counts = labels.sum(axis=0, dtype=np.int64)
        self._orders: dict[int, Iterator[int]] = {
            int(label): iter(random_state.permutation(np.flatnonzero(labels[:, label])).tolist()) for label in drawn
        }

    def remove_one(self, label: int) -> None:
        """Remove one of the rows that carry `label`, each equally likely; at least one must be there."""
        row = next(row for row in self._orders[label] if self.alive[row])
        self.alive[row] = False
        self.counts -= self.labels[row]
