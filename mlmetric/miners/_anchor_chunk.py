"""Selection of triplets for a chunk of anchors: positives in order, and negatives for each up to the caps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.miners._array_ops import argsort_rows, repeat
from mlmetric.miners._negative_candidates import NegativeCandidates
from mlmetric.miners._wavelet_matrix import WaveletMatrix
from mlmetric.similarity import exceeds

TripletKind = Literal["hard", "semihard", "all", "easy"]


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
    """Triplets grouped by (anchor, positive) pair.

    Attributes:
        anchors: Shape `(P,)`.
        positives: Shape `(P,)`.
        counts: Number of negatives of each pair, shape `(P,)`.
        negatives: Negatives of one pair after the other, int32, flat.
    """

    anchors: Tensor
    positives: Tensor
    counts: Tensor
    negatives: Tensor


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
        self.partial_cap = _cap(rule.max_partial_per_positive, self.num_refs)
        self.disjoint_cap = _cap(rule.max_disjoint_per_positive, self.num_refs)
        self.anchor_cap = _cap(rule.max_triplets_per_anchor, self.num_refs**2)
        self.ranked = argsort_rows(distance)
        self.distance = distance.gather(1, self.ranked).flatten()
        similarity = similarity.gather(1, self.ranked)
        self.positive = exceeds(similarity, rule.positive_threshold)
        levels = _dense_ranks(similarity)
        # The highest bit is set for partial references, the lower bits rank the similarity.
        self.partial_level = 1 << int(levels.max()).bit_length()
        levels += exceeds(similarity, rule.partial_threshold).int() * self.partial_level
        if ref_includes_query:
            rows = torch.arange(first, first + self.num_rows, device=distance.device)
            is_self = self.ranked == rows[:, None]
            self.positive &= ~is_self
            levels.masked_fill_(is_self, 2 * self.partial_level - 1)  # never below any level
        self.levels = levels.flatten()
        self.negatives = WaveletMatrix(self.ranked, levels, self.partial_level.bit_length())
        self.num_selected = torch.zeros(self.num_rows, dtype=torch.int64, device=distance.device)

    def select(self, *, chunk_size: int) -> list[TripletGroups]:
        """Select triplets until each anchor has reached its cap or has no more positives.

        Args:
            chunk_size: Number of elements that are processed together.
        """
        pairs_per_chunk = max(1, chunk_size // self.negatives.num_bits)
        groups = [self._select(*pairs, chunk_size) for pairs in self._positive_pairs(pairs_per_chunk)]
        if self.rule.max_triplets_per_anchor is not None and len(groups) > 1:
            groups = [_sort_by_anchor(TripletGroups(*(torch.cat(part) for part in zip(*groups, strict=True))))]
        return [
            TripletGroups((rows + self.first).int(), self.ranked[rows, ranks].int(), counts.int(), negatives)
            for rows, ranks, counts, negatives in groups
        ]

    def _positive_pairs(self, pairs_per_chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and ranks of positives in `positive_order`, for anchors that have not reached their cap."""
        num_positives = self.positive.sum(1)
        ranks = self._ordered_positives(num_positives)
        first = num_positives.cumsum(0) - num_positives

        start, width = 0, self.num_refs
        if self.rule.max_triplets_per_anchor is not None:
            # The fewest positives that can reach the cap; then twice as many each time, so that there are few rounds.
            width = -(-self.anchor_cap // max(1, self.partial_cap + self.disjoint_cap))
        active = num_positives.nonzero().squeeze(1)
        while len(active) > 0:
            counts = (num_positives[active] - start).clamp(max=width)
            rows = repeat(active, counts)
            nth = torch.arange(len(rows), device=rows.device) - repeat(counts.cumsum(0) - counts, counts) + start
            next_ranks = ranks[first[rows] + nth]
            yield from zip(torch.split(rows, pairs_per_chunk), torch.split(next_ranks, pairs_per_chunk), strict=True)
            start, width = start + width, 2 * width
            active = active[(num_positives[active] > start) & (self.num_selected[active] < self.anchor_cap)]

    def _ordered_positives(self, num_positives: Tensor) -> Tensor:
        """Return the ranks of all positives in `positive_order`, row by row, flat."""
        if self.rule.positive_order == "farthest":
            return self.num_refs - 1 - self.positive.flip(1).nonzero()[:, 1]
        key = self._rand(self.num_rows, self.num_refs, dtype=torch.float32).masked_fill(~self.positive, 2.0)
        column = torch.arange(self.num_refs, device=key.device)
        return argsort_rows(key)[column < num_positives[:, None]]

    def _select(self, rows: Tensor, ranks: Tensor, chunk_size: int) -> TripletGroups:
        """Select negatives for (anchor, positive) pairs, sorted by anchor; pairs without negatives are omitted."""
        level = self.levels[rows * self.num_refs + ranks]
        begin, end = self._rank_range(rows, ranks)
        partial = NegativeCandidates(self.negatives, True, rows, begin, end, level)
        if self.rule.disjoint_negatives == "any":
            begin, end = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        disjoint = NegativeCandidates(self.negatives, False, rows, begin, end, level)
        num_partial, num_disjoint = self._apply_caps(rows, partial.counts, disjoint.counts)

        counts = num_partial + num_disjoint
        pairs = counts.nonzero().squeeze(1)
        if torch.equal(num_partial, partial.counts) and torch.equal(num_disjoint, disjoint.counts):
            negatives = self._expand([partial.runs, disjoint.runs], chunk_size)
        else:
            most = max(1, int(torch.maximum(num_partial, num_disjoint).max()))
            kinds = [(partial, num_partial), (disjoint, num_disjoint)]
            negatives = torch.cat(
                [
                    self._expand([self._keep(kind.subset(some), num[some]) for kind, num in kinds], chunk_size)
                    for some in torch.split(pairs, max(1, chunk_size // (4 * most)))
                ]
            )
        return TripletGroups(rows[pairs], ranks[pairs], counts[pairs], negatives)

    def _keep(self, candidates: NegativeCandidates, num: Tensor) -> tuple[Tensor, Tensor]:
        """Return the runs of `num` candidates of each pair, in `negative_order`."""
        if self.rule.negative_order == "hardest":
            return candidates.nearest(num)
        return candidates.sample(num, self._rand)

    def _expand(self, runs: list[tuple[Tensor, Tensor]], chunk_size: int) -> Tensor:
        """Return the references of runs of partial and of disjoint negatives, pair after pair."""
        starts, lengths = (torch.cat(part, dim=1) for part in zip(*runs, strict=True))
        return self.negatives.expand(starts, lengths, chunk_size=chunk_size)

    def _rank_range(self, rows: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance ranks of the negatives allowed by `type_of_triplets`: the first, and the last plus 1."""
        nearest, beyond = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        match self.rule.type_of_triplets:
            case "hard":
                return nearest, self._first_rank(rows, ranks, 0.0)
            case "semihard":
                return self._first_rank(rows, ranks, 0.0), self._first_rank(rows, ranks, self.rule.margin)
            case "all":
                return nearest, self._first_rank(rows, ranks, self.rule.margin)
            case "easy":
                return self._first_rank(rows, ranks, self.rule.margin), beyond

    def _first_rank(self, rows: Tensor, ranks: Tensor, gap: float) -> Tensor:
        """Return the first distance rank at which a reference is at least `gap` farther than the positive."""
        offset = rows * self.num_refs
        positive_distance = self.distance[offset + ranks]
        low, high = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        for _ in range(self.num_refs.bit_length()):
            middle = (low + high) // 2
            distance = self.distance[offset + middle.clamp(max=self.num_refs - 1)]
            nearer = (distance - positive_distance < gap) & (middle < high)
            low, high = torch.where(nearer, middle + 1, low), torch.where(nearer, high, middle)
        return low

    def _apply_caps(self, rows: Tensor, num_partial: Tensor, num_disjoint: Tensor) -> tuple[Tensor, Tensor]:
        """Limit the numbers of negatives to the caps, pair after pair, partial ones first, and count them."""
        num_partial = num_partial.clamp(max=self.partial_cap)
        num_disjoint = num_disjoint.clamp(max=self.disjoint_cap)
        if self.rule.max_triplets_per_anchor is not None:
            wanted = num_partial + num_disjoint
            before = wanted.cumsum(0) - wanted
            pairs = torch.bincount(rows, minlength=self.num_rows)
            before -= before[(pairs.cumsum(0) - pairs)[rows]]
            remaining = (self.anchor_cap - self.num_selected[rows] - before).clamp(min=0)
            num_partial = torch.minimum(num_partial, remaining)
            num_disjoint = torch.minimum(num_disjoint, remaining - num_partial)
            self.num_selected.index_add_(0, rows, num_partial + num_disjoint)
        return num_partial, num_disjoint

    def _rand(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        device = self.distance.device if self.generator is None else self.generator.device
        return torch.rand(*shape, generator=self.generator, dtype=dtype, device=device).to(self.distance.device)


def _sort_by_anchor(groups: TripletGroups) -> TripletGroups:
    """Sort groups by anchor, without changing the order of the groups of an anchor."""
    rows, ranks, counts, negatives = groups
    order = rows.argsort(stable=True)
    first, counts = (counts.cumsum(0) - counts)[order], counts[order]
    position = repeat(first - (counts.cumsum(0) - counts), counts)
    position.add_(torch.arange(len(position), device=position.device))
    return TripletGroups(rows[order], ranks[order], counts, negatives[position])


def _cap(cap: int | None, most: int) -> int:
    return most if cap is None else min(cap, most)


def _dense_ranks(values: Tensor) -> Tensor:
    """Return the dense ranks of the values in each row: 0 for the smallest, 1 for the next value, ...; int32."""
    order = argsort_rows(values)
    ascending = values.gather(1, order)
    ranks = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    ranks[:, 1:] = (ascending[:, 1:] != ascending[:, :-1]).cumsum(1)
    return torch.empty_like(ranks).scatter_(1, order, ranks)
