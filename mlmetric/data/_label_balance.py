"""Swaps of rows between parts until the number of rows of each label in each part is within one of its share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlmetric.data._stratification import Floats, Integers

_OUTSIDE_WEIGHT = 10.0
"""The cost of a count that is one row farther outside its limits, in squares of the distance to the share."""
_TOLERANCE = 1e-9
_MAX_STEPS = 500
_MAX_UPHILL_STEPS = 50
_MAX_TABU_STEPS = 10
_NUM_PARTNERS = 4
_NUM_CANDIDATES = 100


def balance_labels(labels: sparse.csr_array, part_of: Integers, *shares: Floats) -> Integers:
    """Swap rows between parts until the count of each label in each part is within one of its share, if possible.

    The search takes the counts outside of these limits one after the other, and makes the swap that lowers the total
    cost most. Where no swap lowers it for any of them, it makes the least costly one and does not move these rows again
    for some steps (tabu search). It stops after a fixed number of steps and returns the best assignment found. The
    search is deterministic.

    Some label matrices have no assignment within the limits. An example is five rows and one label for every set of
    three of them: one of two parts contains at least three rows, and therefore all three rows of some label, whose
    share is 1.5.

    Args:
        labels: Multi-hot, shape `(N, L)`, from `multi_hot_rows`.
        part_of: The part of each row, int64, shape `(N,)`. The sizes of the parts do not change.
        *shares: The target number of rows of each label in each part, shape `(P, L)`. Counts are brought within one of
            each of the shares given, and as close as possible to the first.

    Returns:
        The part of each row, int64, shape `(N,)`.
    """
    search = _SwapSearch(labels, part_of.copy(), shares)
    tabu_steps = min(_MAX_TABU_STEPS, 1 + len(part_of) // 4)  # few rows must not all be tabu
    best, best_part_of, uphill_steps = np.inf, part_of, 0
    for step in range(1, _MAX_STEPS + 1):
        excess = search.excess()
        if excess.sum() < best - _TOLERANCE:
            best, best_part_of, uphill_steps = excess.sum(), search.part_of.copy(), 0
        outside = excess > _TOLERANCE
        uphill = not (outside & ~search.stuck).any()
        if not outside.any() or uphill_steps == _MAX_UPHILL_STEPS:
            break
        uphill_steps += uphill
        if uphill:
            search.improve(outside, excess, step, tabu_until=step + 2 + uphill_steps % tabu_steps)
        else:
            search.improve(outside & ~search.stuck, excess, step)
    return best_part_of


class _SwapSearch:
    """An assignment of rows to parts, the counts of labels in it, and which counts no swap improves."""

    def __init__(self, labels: sparse.csr_array, part_of: Integers, shares: Sequence[Floats]) -> None:
        self.labels = labels
        self.by_label = labels.tocsc()
        self.part_of = part_of
        self.shares = shares
        counts = [
            np.bincount(labels[part_of == part].indices, minlength=labels.shape[1]) for part in range(len(shares[0]))
        ]
        self.counts: Floats = np.stack(counts).astype(np.float64)
        self.label_set = _label_set_numbers(labels)
        self.stuck = np.zeros(self.counts.shape, dtype=np.bool_)
        self.last_tried = np.zeros(self.counts.shape, dtype=np.int64)
        self.tabu_until = np.zeros(len(part_of), dtype=np.int64)

    def excess(self) -> Floats:
        """Return by how much the distance of each count from its shares exceeds one."""
        return self._excess_of(self.counts)

    def _excess_of(self, counts: Floats) -> Floats:
        excess: Floats = sum(np.maximum(np.abs(counts - shares) - 1, 0) for shares in self.shares)
        return excess

    def _cost_of(self, counts: Floats) -> Floats:
        cost: Floats = _OUTSIDE_WEIGHT * self._excess_of(counts) + (counts - self.shares[0]) ** 2
        return cost

    def improve(self, outside: npt.NDArray[np.bool_], excess: Floats, step: int, *, tabu_until: int = 0) -> None:
        """Swap rows for the count outside its limits that was tried least recently; among equals, for the worst.

        A swap that does not lower the cost is made only with `tabu_until`, the step before which its rows are not moved
        again. Without a swap the count is marked as stuck.
        """
        parts, of_label = np.nonzero(outside)
        first = np.lexsort((-excess[parts, of_label], self.last_tried[parts, of_label]))[0]
        part, label = int(parts[first]), int(of_label[first])
        self.last_tried[part, label] = step
        cost, row, partner = self.best_swap(part, label, step)
        if row < 0 or (cost > -_TOLERANCE and not tabu_until):
            self.stuck[part, label] = True
            return
        self.tabu_until[[row, partner]] = tabu_until
        other = self.part_of[partner]
        for moved, source, target in ((row, part, other), (partner, other, part)):
            own = self.labels.indices[self.labels.indptr[moved] : self.labels.indptr[moved + 1]]
            self.counts[source, own] -= 1
            self.counts[target, own] += 1
            self.part_of[moved] = target
        self.stuck[[part, other]] = False

    def best_swap(self, part: int, label: int, step: int) -> tuple[float, int, int]:
        """Find the swap of a row of the part that changes the count of the label towards its share.

        Returns:
            The change of the cost, the row of the part and the row that takes its place; (inf, -1, -1) without a swap.
        """
        distances = self.counts[:, label] - self.shares[0][:, label]
        direction = np.sign(distances[part])
        gives = np.zeros(len(self.part_of), dtype=np.bool_)
        gives[self.by_label.indices[self.by_label.indptr[label] : self.by_label.indptr[label + 1]]] = True
        if direction < 0:
            gives = ~gives
        movable = self.tabu_until <= step
        rows = np.flatnonzero((self.part_of == part) & gives & movable)
        order = np.argsort(direction * distances, kind="stable")
        others = order[order != part][:_NUM_PARTNERS]
        now = self._cost_of(self.counts)
        more, fewer = self._cost_of(self.counts + 1) - now, self._cost_of(self.counts - 1) - now
        # The cost, for each label, of moving it from the part to the other part, and the reverse.
        losses, gains = fewer[part] + more[others], more[part] + fewer[others]
        best = (np.inf, -1, -1)
        for other, loss, gain in zip(others.tolist(), losses, gains, strict=True):
            partners = np.flatnonzero((self.part_of == other) & ~gives & movable)
            own, own_cost = self._cheapest(rows, loss)
            theirs, their_cost = self._cheapest(partners, gain)
            if not len(own) or not len(theirs):
                continue
            shared = self.labels[own]
            shared.data = (loss + gain)[shared.indices]  # a label of both rows stays in both parts
            costs = own_cost[:, None] + their_cost - (shared @ self.labels[theirs].T).toarray()
            row, partner = np.unravel_index(costs.argmin(), costs.shape)
            if costs[row, partner] < best[0]:
                best = (float(costs[row, partner]), int(own[row]), int(theirs[partner]))
        return best

    def _cheapest(self, rows: Integers, cost_of_label: Floats) -> tuple[Integers, Floats]:
        """Return the rows that cost least to move, one for each set of labels, and their costs."""
        costs = self.labels[rows] @ cost_of_label
        order = np.argsort(costs, kind="stable")[: 8 * _NUM_CANDIDATES]
        _, first = np.unique(self.label_set[rows[order]], return_index=True)
        chosen = order[np.sort(first)[:_NUM_CANDIDATES]]
        return rows[chosen], costs[chosen]


def _label_set_numbers(labels: sparse.csr_array) -> Integers:
    """Number the distinct label sets, and return the number of each row's label set."""
    numbers: dict[bytes, int] = {}
    sets = (labels.indices[start:stop].tobytes() for start, stop in itertools.pairwise(labels.indptr.tolist()))
    return np.array([numbers.setdefault(columns, len(numbers)) for columns in sets], dtype=np.int64)
