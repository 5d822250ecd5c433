"""Selection of triplets for a chunk of anchors: positives in order, and negatives for each up to the caps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.miners._array_ops import (
    Array,
    arange,
    argsort_rows,
    bincount,
    concatenate,
    expand,
    maximum,
    minimum,
    nonzero,
    repeat,
    stable_argsort,
    stack_columns,
    to_array,
    to_int,
    where,
)
from mlmetric.miners._negative_lists import NegativeLists, pick
from mlmetric.miners._random_negatives import RandomNegatives
from mlmetric.miners._sampling import sample_without_replacement
from mlmetric.similarity import exceeds

TripletKind = Literal["hard", "semihard", "all", "easy"]

# Up to this number of (pair, reference) elements, the time is that of the function calls, whatever the number.
_QUICK_ELEMENTS = 2**15
# Negatives are drawn without a list of all candidates if there are more than this number of (pair, reference) elements
# for each negative to draw, and at most the second number of negatives to draw.
_DRAW_ELEMENTS, _MOST_DRAWN = 2**18, 16
# Memory of a pair, in elements, for each negative that is drawn without a matrix.
_PAIR_ELEMENTS = 16


@dataclass(frozen=True, kw_only=True)
class TripletRule:
    """Which triplets qualify, and how many are kept; the fields are the parameters of `MultiLabelSemiHardMiner`."""

    positive_threshold: float
    partial_threshold: float
    type_of_triplets: TripletKind
    margin: float
    max_partial_per_positive: int | None = None
    max_disjoint_per_positive: int | None = None
    max_triplets_per_anchor: int | None = None
    positive_order: Literal["farthest", "random"] = "farthest"
    disjoint_negatives: Literal["violating", "any"] = "violating"
    negative_order: Literal["random", "hardest"] = "random"


class TripletGroups(NamedTuple):
    """Triplets grouped by (anchor, positive) pair, as int32 arrays.

    Attributes:
        anchors: Shape `(P,)`.
        positives: Shape `(P,)`.
        counts: Number of negatives of each pair, shape `(P,)`.
        negatives: Negatives of one pair after the other, flat.
    """

    anchors: Array
    positives: Array
    counts: Array
    negatives: Array


class AnchorChunk:
    """A chunk of anchors with their references ordered by distance, and the number of triplets selected for each.

    Args:
        distance: Shape `(R, M)`, smaller is nearer.
        similarity: Shape `(R, M)`, larger is more similar.
        first: Index of the first anchor in the batch.
        rule: Which triplets qualify, and how many are kept.
        ref_includes_query: Whether reference i is row i of the batch.
        generator: Random generator; None for torch's global one.
    """

    def __init__(
        self,
        distance: Tensor,
        similarity: Tensor,
        first: int,
        rule: TripletRule,
        *,
        ref_includes_query: bool,
        generator: torch.Generator | None,
    ) -> None:
        self.first, self.rule, self.generator = first, rule, generator
        self.num_rows, self.num_refs = distance.shape
        self.device = distance.device
        self.anchor_cap = _cap(rule.max_triplets_per_anchor, self.num_refs**2)
        self.partial_cap = _cap(rule.max_partial_per_positive, min(self.num_refs, self.anchor_cap))
        self.disjoint_cap = _cap(rule.max_disjoint_per_positive, min(self.num_refs, self.anchor_cap))
        most = max(self.partial_cap, self.disjoint_cap)
        # The number of negatives to draw from either list, if that can be faster than a list of all candidates.
        self.draws = most if rule.negative_order == "random" and most <= _MOST_DRAWN else 0
        self.capped = self.anchor_cap < self.num_refs**2 or min(self.partial_cap, self.disjoint_cap) < self.num_refs
        partial = to_array(exceeds(similarity, rule.partial_threshold))
        positive = partial + False  # a copy
        if rule.positive_threshold != rule.partial_threshold:
            positive = to_array(exceeds(similarity, rule.positive_threshold))
        values, distances = to_array(similarity), to_array(distance)
        self.row = arange(self.num_rows, distances)
        excluded: list[tuple[Array, ...]] = [(self.row, self.row + first)] if ref_includes_query else []
        if similarity.is_floating_point() and bool(similarity.max().isnan()):
            excluded.append(nonzero(to_array(similarity.isnan())))
        values = values + 0 if excluded else values  # a copy
        for pairs in excluded:  # their similarity is never below that of a positive
            positive[pairs], partial[pairs], values[pairs] = False, True, _largest(similarity.dtype)

        offset = self.num_refs * self.row[:, None]
        self.ranked = argsort_rows(distances) + offset  # indices into the flat matrices
        self.distance = distances.reshape(-1)[self.ranked].reshape(-1)
        self.similarity = values.reshape(-1)
        self.positive = positive.reshape(-1)[self.ranked]
        partial = partial.reshape(-1)[self.ranked]
        rank = arange(self.num_refs, self.row)
        partial_before = partial.cumsum(1)
        self.num_partial = partial_before[:, -1]
        position = where(partial, partial_before - 1, rank - partial_before + self.num_partial[:, None])
        self.position = (position + offset).reshape(-1)  # in the order of the lists, for each rank
        order = 0 * self.ranked
        order.reshape(-1)[self.position] = self.ranked.reshape(-1)
        self.partial_before = partial_before.reshape(-1)
        self.negatives = NegativeLists(to_int(order - offset, 32), self.similarity[order], self.num_partial)
        self.num_selected = 0 * self.row

    def select(self, *, chunk_size: int) -> list[TripletGroups]:
        """Select triplets until each anchor has reached its cap or has no more positives.

        Args:
            chunk_size: Number of elements that are processed together.
        """
        groups = [self._select(*pairs, chunk_size) for pairs in self._positive_pairs(chunk_size)]
        if self.rule.max_triplets_per_anchor is not None and len(groups) > 1:
            groups = [_sort_by_anchor(*(concatenate(list(part)) for part in zip(*groups, strict=True)))]
        return [
            TripletGroups(to_int(rows + self.first, 32), to_int(positives, 32), to_int(counts, 32), negatives)
            for rows, positives, counts, negatives in groups
        ]

    def _positive_pairs(self, chunk_size: int) -> Iterator[tuple[Array, Array]]:
        """Yield rows and ranks of positives in `positive_order`, for anchors that have not reached their cap."""
        rows, ranks, num_positives = self._ordered_positives()
        pairs_per_chunk = max(1, chunk_size // (_PAIR_ELEMENTS * self.draws or self.num_refs))
        if self.rule.max_triplets_per_anchor is None:
            yield from _split(rows, ranks, pairs_per_chunk)
            return
        first = num_positives.cumsum(0) - num_positives
        # The fewest positives that can reach the cap; then twice as many each time, so that there are few rounds, and
        # as many as take little time.
        start, width = 0, -(-self.anchor_cap // max(1, self.partial_cap + self.disjoint_cap))
        active = nonzero(num_positives)[0]
        while len(active) > 0:
            width = max(width, _QUICK_ELEMENTS // (len(active) * self.num_refs))
            counts = minimum(num_positives[active] - start, width)
            yield from _split(repeat(active, counts), ranks[expand(first[active] + start, counts)], pairs_per_chunk)
            start, width = start + width, 2 * width
            active = active[(num_positives[active] > start) & (self.num_selected[active] < self.anchor_cap)]

    def _ordered_positives(self) -> tuple[Array, Array, Array]:
        """Return rows and ranks of all positives, row by row in `positive_order`, and their number in each row."""
        num_positives = self.positive.sum(1)
        rows, ranks = nonzero(self.positive)
        if self.rule.positive_order == "farthest":
            # In each row the last one and the first one change places, and so on.
            ends = num_positives.cumsum(0)
            return rows, ranks[(2 * ends - num_positives - 1)[rows] - arange(len(rows), rows)], num_positives
        key = self._rand(self.num_rows, self.num_refs, dtype=torch.float32)
        order = argsort_rows(where(self.positive, key, 2.0))
        return rows, order[arange(self.num_refs, order) < num_positives[:, None]], num_positives

    def _select(self, rows: Array, ranks: Array, chunk_size: int) -> tuple[Array, Array, Array, Array]:
        """Select negatives for (anchor, positive) pairs, sorted by anchor; pairs without negatives are omitted."""
        begin, end = self._ranges(rows, ranks)
        ranks = self.num_refs * rows + ranks
        pair = self.ranked.reshape(-1)[ranks]
        if self.draws and len(rows) * self.num_refs > self.draws * _DRAW_ELEMENTS:
            positives = self.position[ranks]
            drawn = RandomNegatives(
                self.negatives, rows, begin, end, positives, self.draws, self._rand, chunk_size=chunk_size
            )
            num = self._apply_caps(rows, drawn.available)
            index = drawn.take(num.reshape(-1))
        else:
            found = self.negatives.find(rows, begin, end, self.similarity[pair])
            index = found.index
            num = available = found.edges[1:] - found.edges[:-1]
            if self.capped:
                num = self._apply_caps(rows, available.reshape(-1, 2)).reshape(-1)
                if int(num.sum()) < len(index):
                    index = index[self._keep(found.edges[:-1], available, num)]
            index += repeat(found.shifts, num.reshape(-1, 2).sum(1), len(index))
        counts = num.reshape(-1, 2).sum(1)
        some = nonzero(counts)[0]
        return rows[some], (pair - self.num_refs * rows)[some], counts[some], self.negatives.refs[index]

    def _keep(self, first: Array, available: Array, num: Array) -> Array:
        """Return which candidates are kept, in `negative_order`: `num` of `available` ones from index `first`."""
        if self.rule.negative_order == "hardest":
            return expand(first, num)
        if self.draws == 1:
            some = nonzero(num)[0]
            return first[some] + pick(available[some], self._rand)
        return sample_without_replacement(first, available, num, self._rand)

    def _ranges(self, rows: Array, ranks: Array) -> tuple[Array, Array]:
        """Return the ranges of negatives that the distances allow, in the order of the two lists, `(P, 2)` each."""
        num_partial = self.num_partial[rows]
        begin, end = (self._positions(rows, rank, num_partial) for rank in self._rank_range(rows, ranks))
        if self.rule.disjoint_negatives == "any":
            begin[:, 1], end[:, 1] = num_partial, self.num_refs
        if self.partial_cap == 0:
            end[:, 0] = begin[:, 0]
        if self.disjoint_cap == 0:
            end[:, 1] = begin[:, 1]
        return begin, end

    def _positions(self, rows: Array, ranks: Array | int, num_partial: Array) -> Array:
        """Return the ends, for a rank, of the partial list and of the disjoint list, as numbers of references."""
        if isinstance(ranks, int):
            # All references, or none: those of the disjoint list end with the last reference.
            return stack_columns(num_partial * (ranks > 0), maximum(num_partial, ranks))
        nearer = self.partial_before[self.num_refs * rows + maximum(ranks, 1) - 1] * (ranks > 0)
        return stack_columns(nearer, num_partial + ranks - nearer)

    def _rank_range(self, rows: Array, ranks: Array) -> tuple[Array | int, Array | int]:
        """Return the distance ranks of the negatives allowed by `type_of_triplets`: the first, and the last plus 1."""
        match self.rule.type_of_triplets:
            case "hard":
                return 0, self._first_rank(rows, ranks, 0.0)
            case "semihard":
                return self._first_rank(rows, ranks, 0.0), self._first_rank(rows, ranks, self.rule.margin)
            case "all":
                return 0, self._first_rank(rows, ranks, self.rule.margin)
            case "easy":
                return self._first_rank(rows, ranks, self.rule.margin), self.num_refs

    def _first_rank(self, rows: Array, ranks: Array, gap: float) -> Array:
        """Return the first distance rank at which a reference is at least `gap` farther than the positive."""
        offset = rows * self.num_refs
        distance = self.distance[offset + ranks]
        if gap == 0:
            # That of the positive itself, unless nearer references have the same distance.
            tied = nonzero((self.distance[offset + maximum(ranks, 1) - 1] == distance) & (ranks > 0))[0]
            ranks = ranks + 0  # a copy
            if len(tied):
                ranks[tied] = self._search_rank(offset[tied], distance[tied], gap)
            return ranks
        return self._search_rank(offset, distance, gap)

    def _search_rank(self, offset: Array, distance: Array, gap: float) -> Array:
        """Return the first rank, in the row from `offset`, of a distance at least `gap` above `distance`."""
        low, high = 0 * offset, 0 * offset + self.num_refs
        for _ in range(self.num_refs.bit_length()):
            middle = (low + high) // 2
            nearer = self.distance[offset + minimum(middle, self.num_refs - 1)] - distance < gap
            nearer &= middle < high
            low, high = where(nearer, middle + 1, low), where(nearer, high, middle)
        return low

    def _apply_caps(self, rows: Array, available: Array) -> Array:
        """Limit numbers of partial and disjoint negatives, `(P, 2)`, to the caps, pair after pair, and count them."""
        num_partial = minimum(available[:, 0], self.partial_cap)
        num_disjoint = minimum(available[:, 1], self.disjoint_cap)
        if self.rule.max_triplets_per_anchor is not None:
            wanted = num_partial + num_disjoint
            before = wanted.cumsum(0) - wanted
            pairs = bincount(rows, self.num_rows)
            # Of an anchor without pairs the index is one that is not used.
            before -= before[minimum(pairs.cumsum(0) - pairs, len(rows) - 1)[rows]]
            remaining = maximum(self.anchor_cap - self.num_selected[rows] - before, 0)
            num_partial = minimum(num_partial, remaining)
            num_disjoint = minimum(num_disjoint, remaining - num_partial)
            self.num_selected += self._sums(rows, num_partial + num_disjoint)
        return stack_columns(num_partial, num_disjoint)

    def _sums(self, rows: Array, values: Array) -> Array:
        """Return the sum of the values of each row; `rows` is ascending."""
        ends = bincount(rows, self.num_rows).cumsum(0)
        total = concatenate([0 * values[:1], values.cumsum(0)])[ends]
        total[1:] -= 1 * total[:-1]
        return total

    def _rand(self, *shape: int, dtype: torch.dtype = torch.float64) -> Array:
        device = self.device if self.generator is None else self.generator.device
        return to_array(torch.rand(*shape, generator=self.generator, dtype=dtype, device=device).to(self.device))


def _split(rows: Array, ranks: Array, size: int) -> Iterator[tuple[Array, Array]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size], ranks[first : first + size]


def _sort_by_anchor(rows: Array, positives: Array, counts: Array, negatives: Array) -> tuple[Array, ...]:
    """Sort groups by anchor, without changing the order of the groups of an anchor."""
    order = stable_argsort(rows)
    first, counts = (counts.cumsum(0) - counts)[order], counts[order]
    return rows[order], positives[order], counts, negatives[expand(first, counts)]


def _cap(cap: int | None, most: int) -> int:
    return most if cap is None else min(cap, most)


def _largest(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point:
        return torch.inf
    return True if dtype == torch.bool else torch.iinfo(dtype).max
