"""The references of each anchor in two lists, partial and disjoint negatives, from which candidates are taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlmetric.miners._array_ops import (
    Array,
    arange,
    concatenate,
    expand,
    minimum,
    nonzero,
    repeat,
    running_minimum,
    searchsorted,
    stack_columns,
    to_int,
)

Rand = Callable[..., Array]
"""A function that returns uniform random numbers in [0, 1), float64, of a shape."""

# An element of a range that is looked up by its index takes about as long as this many elements of a matrix of all
# pairs and references.
_RANGE_COST = 8
# Rounds in which a random reference is drawn and rejected if it is not a candidate.
_ROUNDS = 6
# Largest number of references for which a table of all ranges is used.
_LARGEST_TABLE = 512


class Candidates(NamedTuple):
    """Candidates of P (anchor, positive) pairs.

    Attributes:
        index: Index of each candidate in the references, less the shift of its pair, flat.
        shifts: Shift of each pair, shape `(P,)`.
        edges: For each pair the number of the first partial and of the first disjoint candidate, in `index`, then the
            number of all candidates, shape `(2 P + 1,)`.
    """

    index: Array
    shifts: Array
    edges: Array


class NegativeLists:
    """The references of R anchors: for each one the partial ones, then the disjoint ones, each from the nearest on.

    The candidates of an (anchor, positive) pair are, in a range of either list, those less similar than the positive.

    Args:
        refs: References of each row in the order of the lists, shape `(R, M)`, int32.
        similarity: Their similarities, shape `(R, M)`; of references that are never candidates the largest number.
    """

    def __init__(self, refs: Array, similarity: Array) -> None:
        self.num_refs = refs.shape[1]
        self.refs = refs.reshape(-1)
        self._similarity = similarity
        self._lowest: Array | None = None

    def find(self, rows: Array, begin: Array, end: Array, similarity: Array) -> Candidates:
        """Find the candidates of P pairs.

        Args:
            rows: Shape `(P,)`, int64, in `[0, R)`.
            begin: First position of either range in the order of the lists, shape `(P, 2)`.
            end: Last position of either range plus 1, shape `(P, 2)`, at least `begin`.
            similarity: Similarity of the positive, shape `(P,)`.

        Returns:
            The candidates of one pair after the other, partial before disjoint ones, each from the nearest on.
        """
        lengths = (end - begin).reshape(-1)
        if _RANGE_COST * int(lengths.sum()) < len(rows) * self.num_refs:
            return self._find_in_ranges(rows, begin.reshape(-1), lengths, similarity)
        return self._find_in_matrix(rows, begin, end, similarity)

    def _find_in_ranges(self, rows: Array, begin: Array, lengths: Array, similarity: Array) -> Candidates:
        """Find candidates by a comparison of the references in the ranges."""
        per_pair = lengths.reshape(-1, 2).sum(1)
        index = expand(begin + self.num_refs * stack_columns(rows, rows).reshape(-1), lengths)
        found = nonzero(self._similarity.reshape(-1)[index] < repeat(similarity, per_pair))[0]
        ends = lengths.cumsum(0)
        return Candidates(index[found], 0 * rows, searchsorted(found, concatenate([0 * ends[:1], ends])))

    def _find_in_matrix(self, rows: Array, begin: Array, end: Array, similarity: Array) -> Candidates:
        """Find candidates by a comparison of all references of each pair."""
        width = int(end.max())
        mask = self._similarity[:, :width][rows] < similarity[:, None]
        mask &= _in_ranges(begin, end, width)
        found = nonzero(mask.reshape(-1))[0]
        first = width * arange(len(rows) + 1, rows)
        edges = searchsorted(found, concatenate([(first[:-1, None] + begin).reshape(-1), first[-1:]]))
        return Candidates(found, self.num_refs * rows - first[:-1], edges)

    def draw(
        self, rows: Array, begin: Array, end: Array, similarity: Array, rand: Rand, *, chunk_size: int
    ) -> Array:
        """Draw one of the candidates in each of P ranges, with equal probabilities.

        Args:
            rows: Shape `(P,)`, int64.
            begin: First position of the range, shape `(P,)`.
            end: Last position plus 1, shape `(P,)`, at least `begin`.
            similarity: Similarity of the positive, shape `(P,)`.
            rand: Source of random numbers.
            chunk_size: Number of elements that are processed together.

        Returns:
            Index in `refs`, or -1 if there is no candidate, shape `(P,)`, int64.
        """
        drawn = 0 * rows - 1
        if self._lowest is None:
            self._lowest = running_minimum(self._similarity).reshape(-1)
        first, size = self.num_refs * rows + begin, end - begin
        # The references of a list before the range are not candidates, but if they are all as similar as the positive,
        # so are those in the range; partial references are more similar than all disjoint ones.
        left = nonzero((size > 0) & (self._lowest[first + size - 1] < similarity))[0]
        values = self._similarity.reshape(-1)
        first, size, bound = first[left], size[left], similarity[left]
        for _ in range(_ROUNDS):
            if len(left) * self.num_refs <= chunk_size:
                break
            index = first + pick(size, rand)
            drawn[left] = index
            miss = nonzero(values[index] >= bound)[0]
            left, first, size, bound = left[miss], first[miss], size[miss], bound[miss]
        step = max(1, chunk_size // self.num_refs)
        for some in (left[start : start + step] for start in range(0, len(left), step)):
            last = end[some]
            found = self.find(
                rows[some], stack_columns(begin[some], last), stack_columns(last, last), similarity[some]
            )
            drawn[some] = -1
            edges = found.edges[::2]
            nonempty = nonzero(edges[1:] - edges[:-1])[0]
            chosen = edges[nonempty] + pick((edges[1:] - edges[:-1])[nonempty], rand)
            drawn[some[nonempty]] = found.index[chosen] + found.shifts[nonempty]
        return drawn


def _in_ranges(begin: Array, end: Array, length: int) -> Array:
    """Return which of `length` positions are in one of two disjoint ranges, `(P, 2)` each, shape `(P, length)`."""
    if length <= _LARGEST_TABLE and isinstance(begin, np.ndarray):
        below = _positions_below(length)
        mask: Array = below.take(end[:, 0], axis=0)
        for bounds in (end[:, 1], begin[:, 1], begin[:, 0]):
            mask ^= below.take(bounds, axis=0)
        return mask
    bits = 16 if length < 2**15 else 32
    position = to_int(arange(length, begin), bits)
    begin, end = to_int(begin, bits), to_int(end, bits)
    mask = (position >= begin[:, :1]) & (position < end[:, :1])
    mask |= (position >= begin[:, 1:]) & (position < end[:, 1:])
    return mask


@lru_cache(maxsize=4)
def _positions_below(length: int) -> npt.NDArray[np.bool_]:
    """Return, for 0, 1, ..., `length`, which positions are below it: rows are copied faster than they are compared."""
    return np.tri(length + 1, length, -1, dtype=bool)


def pick(population: Array, rand: Rand) -> Array:
    """Return a random integer below each of `population`, all with the same probability, int64."""
    return minimum(to_int(rand(*population.shape) * population, 64), population - 1)
