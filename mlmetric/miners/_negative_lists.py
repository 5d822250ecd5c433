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
    argsort_rows,
    concatenate,
    expand,
    maximum,
    minimum,
    nonzero,
    repeat,
    running_maximum,
    running_minimum,
    searchsorted,
    stack_columns,
    to_int,
    where,
)

Rand = Callable[..., Array]
"""A function that returns uniform random numbers in [0, 1), float64, of a shape."""
LookUp = Callable[[Array, Array], tuple[Array, Array]]
"""A function that returns the indices of drawn references, and whether they are candidates of the given ranges."""

# An element of a range that is looked up by its index takes about as long as this many elements of a matrix of all
# pairs and references.
_RANGE_COST = 8
# Rounds in which a random reference is drawn and rejected if it is not a candidate, after the first one; there are none
# if all candidates of the rest are found in this share of a chunk.
_ROUNDS, _EXACT_SHARE = 4, 4
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
    """The references of R anchors: for each anchor the partial ones, then the disjoint ones, both nearest first.

    The candidates of an (anchor, positive) pair are the references that lie in a range of either list and are less
    similar than the positive.

    Args:
        refs: References of each row in the order of the lists, shape `(R, M)`, int32.
        similarity: Their similarities, shape `(R, M)`; for references that are never candidates, the largest number.
        num_partial: Length of the partial list, shape `(R,)`. Its similarities are above those of the disjoint list.
    """

    def __init__(self, refs: Array, similarity: Array, num_partial: Array) -> None:
        self.num_refs = refs.shape[1]
        self.refs = refs.reshape(-1)
        self._similarity = similarity
        self._num_partial = num_partial
        self._lowest: Array | None = None
        self._num_less: Array | None = None

    def find(self, rows: Array, begin: Array, end: Array, similarity: Array) -> Candidates:
        """Find the candidates of P pairs.

        Args:
            rows: Shape `(P,)`, int64, in `[0, R)`.
            begin: First position of either range in the order of the lists, shape `(P, 2)`.
            end: Last position of either range plus 1, shape `(P, 2)`, at least `begin`.
            similarity: Similarity of the positive, shape `(P,)`.

        Returns:
            The candidates of one pair after the other, partial before disjoint ones, both nearest first.
        """
        lengths = (end - begin).reshape(-1)
        if _RANGE_COST * int(lengths.sum()) < len(rows) * self.num_refs:
            return self._find_in_ranges(rows, begin.reshape(-1), lengths, similarity)
        return self._find_in_matrix(rows, begin, end, similarity)

    def _find_in_ranges(self, rows: Array, begin: Array, lengths: Array, similarity: Array) -> Candidates:
        """Find candidates by comparing the references in the ranges."""
        per_pair = lengths.reshape(-1, 2).sum(1)
        index = expand(begin + self.num_refs * stack_columns(rows, rows).reshape(-1), lengths)
        found = nonzero(self._similarity.reshape(-1)[index] < repeat(similarity, per_pair))[0]
        ends = lengths.cumsum(0)
        return Candidates(index[found], 0 * rows, searchsorted(found, concatenate([0 * ends[:1], ends])))

    def _find_in_matrix(self, rows: Array, begin: Array, end: Array, similarity: Array) -> Candidates:
        """Find candidates by comparing all references of each pair."""
        width = int(end.max())
        mask = self._similarity[:, :width][rows] < similarity[:, None]
        mask &= _in_ranges(begin, end, width)
        found = nonzero(mask.reshape(-1))[0]
        first = width * arange(len(rows) + 1, rows)
        edges = searchsorted(found, concatenate([(first[:-1, None] + begin).reshape(-1), first[-1:]]))
        return Candidates(found, self.num_refs * rows - first[:-1], edges)

    def find_in_one_range(self, rows: Array, begin: Array, end: Array, positives: Array) -> tuple[Array, Array]:
        """Return the indices of all candidates in each of P ranges, flat, and their numbers, shape `(P,)`."""
        similarity = self._similarity.reshape(-1)[positives]
        found = self.find(rows, stack_columns(begin, end), stack_columns(end, end), similarity)
        edges = found.edges[::2]
        counts = edges[1:] - edges[:-1]
        return found.index + repeat(found.shifts, counts, len(found.index)), counts

    def draw(self, rows: Array, begin: Array, end: Array, positives: Array, rand: Rand, *, chunk_size: int) -> Array:
        """Draw one of the candidates in each of P ranges, with equal probabilities.

        References are drawn until one is a candidate: from the range, or, if they are fewer, from the references of the
        list that are less similar than the positive. A candidate is then equally likely to be any of them.

        Args:
            rows: Shape `(P,)`, int64.
            begin: First position of the range, shape `(P,)`.
            end: Last position plus 1, shape `(P,)`, at least `begin`.
            positives: Index of the positive in `refs`, shape `(P,)`.
            rand: Source of random numbers.
            chunk_size: Number of elements that are processed together.

        Returns:
            Index in `refs`, or -1 if there is no candidate, shape `(P,)`, int64.
        """
        drawn = 0 * rows - 1
        offset = self.num_refs * rows
        first, last = offset + begin, offset + end
        values = self._similarity.reshape(-1)
        similarity = values[positives]
        if self._lowest is None:
            self._lowest = running_minimum(self._similarity).reshape(-1)
        # The references of a list before the range are not candidates, but if they are all as similar as the positive,
        # so are those in the range; partial references are more similar than all disjoint ones.
        left = nonzero((begin < end) & (self._lowest[maximum(last - 1, 0)] < similarity))[0]

        def from_range(left: Array, index: Array) -> tuple[Array, Array]:
            return index, values[index] < similarity[left]

        def from_less_similar(left: Array, index: Array) -> tuple[Array, Array]:
            index = self._ascending[index]
            return index, (index >= first[left]) & (index < last[left])

        step = max(1, chunk_size // self.num_refs)
        left = _reject(drawn, left, first[left], (last - first)[left], from_range, rand, rounds=1)
        if len(left) > step // _EXACT_SHARE:
            least, most = self._less_similar(offset[left], begin[left], positives[left])
            fewer = most - least < (last - first)[left]
            some, others = nonzero(fewer)[0], nonzero(~fewer)[0]
            by_similarity = left[some], least[some], (most - least)[some], from_less_similar
            left = left[others]
            by_distance = left, first[left], (last - first)[left], from_range
            left = concatenate([_reject(drawn, *way, rand, rounds=_ROUNDS) for way in (by_similarity, by_distance)])
        for some in (left[start : start + step] for start in range(0, len(left), step)):
            index, count = self.find_in_one_range(rows[some], begin[some], end[some], positives[some])
            drawn[some] = -1
            nonempty = nonzero(count)[0]
            chosen = (count.cumsum(0) - count)[nonempty] + pick(count[nonempty], rand)
            drawn[some[nonempty]] = index[chosen]
        return drawn

    def _less_similar(self, offset: Array, begin: Array, positives: Array) -> tuple[Array, Array]:
        """Return where in `_ascending` the references of a list begin, and those less similar than the positive end.

        Args:
            offset: Index of the first reference of the row, shape `(P,)`.
            begin: A position in the list, shape `(P,)`.
            positives: Index of the positive, shape `(P,)`.
        """
        if self._num_less is None:
            starts = self.num_refs * arange(len(self._similarity), offset)[:, None]
            order = argsort_rows(self._similarity) + starts
            ascending = self._similarity.reshape(-1)[order]
            rank = 0 * order + arange(self.num_refs, order)
            rank[:, 1:] *= ascending[:, 1:] != ascending[:, :-1]
            self._ascending, self._num_less = order.reshape(-1), 0 * order.reshape(-1)
            self._num_less[self._ascending] = running_maximum(rank).reshape(-1)
        num_partial = self._num_partial[offset // self.num_refs]
        num_disjoint, is_partial = self.num_refs - num_partial, begin < num_partial
        most = self._num_less[positives]
        # Of the similarities of a row, those of the disjoint list are the lowest ones.
        most = where(is_partial, most, minimum(most, num_disjoint))
        return offset + num_disjoint * is_partial, offset + most


def _reject(drawn: Array, left: Array, first: Array, size: Array, look_up: LookUp, rand: Rand, *, rounds: int) -> Array:
    """Draw one of `size` numbers from `first` for each of `left`, and return those of `left` without a candidate."""
    for _ in range(rounds):
        if len(left) == 0:
            break
        drawn[left], accepted = look_up(left, first + pick(size, rand))
        miss = nonzero(~accepted)[0]
        left, first, size = left[miss], first[miss], size[miss]
    return left


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
