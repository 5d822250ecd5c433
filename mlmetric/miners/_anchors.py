"""Anchors that visit their positives and take negatives for each of them, as many as the caps allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.miners._arrays import argsort_rows, repeat
from mlmetric.miners._candidates import Candidates
from mlmetric.miners._ranked_refs import RankedRefs
from mlmetric.similarity import exceeds

TripletKind = Literal["hard", "semihard", "all", "easy"]


@dataclass(frozen=True, kw_only=True)
class TripletRule:
    """Which triplets qualify, and which of them the caps keep; see `MultiLabelSemiHardMiner` for each field."""

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


class Taken(NamedTuple):
    """Triplets by (anchor, positive) pair.

    Attributes:
        anchors: Shape `(P,)`.
        positives: Shape `(P,)`.
        counts: How many negatives each pair has, shape `(P,)`.
        negatives: Of one pair after the other, int32, flat.
    """

    anchors: Tensor
    positives: Tensor
    counts: Tensor
    negatives: Tensor


class Anchors:
    """Some anchors, the refs of each ranked by distance, and how many triplets each has so far.

    Args:
        distance: Shape `(R, M)`, smaller is nearer.
        similarity: Shape `(R, M)`, larger is more alike.
        first: Index of the first of these anchors in the batch.
        rule: What qualifies and what is kept.
        self_pairs: Whether ref i is anchor i.
        generator: Source of random draws.
    """

    def __init__(
        self,
        distance: Tensor,
        similarity: Tensor,
        first: int,
        rule: TripletRule,
        *,
        self_pairs: bool,
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
        # The highest bit says that a ref is partial, the others how similar it is: below a level lie whole kinds.
        self.partial_level = 1 << int(levels.max()).bit_length()
        levels += exceeds(similarity, rule.partial_threshold).int() * self.partial_level
        if self_pairs:
            rows = torch.arange(first, first + self.num_rows, device=distance.device)
            is_self = self.ranked == rows[:, None]
            self.positive &= ~is_self
            levels.masked_fill_(is_self, 2 * self.partial_level - 1)  # never below any level
        self.levels = levels.flatten()
        self.negatives = RankedRefs(self.ranked, levels, self.partial_level.bit_length())
        self.taken = torch.zeros(self.num_rows, dtype=torch.int64, device=distance.device)

    def take(self, *, at_once: int) -> list[Taken]:
        """Visit positives until each anchor has its triplets, or no positive is left.

        Args:
            at_once: How many numbers are worked on together.
        """
        taken = [self._take(*pairs, at_once) for pairs in self._visits(max(1, at_once // self.negatives.num_bits))]
        if self.rule.max_triplets_per_anchor is not None and len(taken) > 1:
            taken = [_by_row(Taken(*(torch.cat(part) for part in zip(*taken, strict=True))))]
        return [
            Taken((rows + self.first).int(), self.ranked[rows, ranks].int(), counts.int(), negatives)
            for rows, ranks, counts, negatives in taken
        ]

    def _visits(self, pairs_at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and ranks of positives in the order of the visit, as long as an anchor wants more triplets."""
        num_positives = self.positive.sum(1)
        ranks = self._visiting_order(num_positives)
        first = num_positives.cumsum(0) - num_positives

        start, width = 0, self.num_refs
        if self.rule.max_triplets_per_anchor is not None:
            # As many as an anchor visits at least; then twice as many, so that there are few rounds.
            width = -(-self.anchor_cap // max(1, self.partial_cap + self.disjoint_cap))
        active = num_positives.nonzero().squeeze(1)
        while len(active) > 0:
            visits = (num_positives[active] - start).clamp(max=width)
            rows = repeat(active, visits)
            nth = torch.arange(len(rows), device=rows.device) - repeat(visits.cumsum(0) - visits, visits) + start
            visited = ranks[first[rows] + nth]
            yield from zip(torch.split(rows, pairs_at_once), torch.split(visited, pairs_at_once), strict=True)
            start, width = start + width, 2 * width
            active = active[(num_positives[active] > start) & (self.taken[active] < self.anchor_cap)]

    def _visiting_order(self, num_positives: Tensor) -> Tensor:
        """Return the ranks of all positives, row by row, flat."""
        if self.rule.positive_order == "farthest":
            return self.num_refs - 1 - self.positive.flip(1).nonzero()[:, 1]
        key = self._rand(self.num_rows, self.num_refs, dtype=torch.float32).masked_fill(~self.positive, 2.0)
        place = torch.arange(self.num_refs, device=key.device)
        return argsort_rows(key)[place < num_positives[:, None]]

    def _take(self, rows: Tensor, ranks: Tensor, at_once: int) -> Taken:
        """Take negatives for (anchor, positive) pairs, sorted by anchor; pairs without any are left out."""
        level = self.levels[rows * self.num_refs + ranks]
        begin, end = self._window(rows, ranks)
        partial = Candidates(self.negatives, True, rows, begin, end, level)
        if self.rule.disjoint_negatives == "any":
            begin, end = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        disjoint = Candidates(self.negatives, False, rows, begin, end, level)
        num_partial, num_disjoint = self._within_caps(rows, partial.number, disjoint.number)

        counts = num_partial + num_disjoint
        pairs = counts.nonzero().squeeze(1)
        if torch.equal(num_partial, partial.number) and torch.equal(num_disjoint, disjoint.number):
            negatives = self._listed([partial.runs, disjoint.runs], at_once)
        else:
            most = max(1, int(torch.maximum(num_partial, num_disjoint).max()))
            kept = [(partial, num_partial), (disjoint, num_disjoint)]
            negatives = torch.cat(
                [
                    self._listed([self._kept(candidates.of(some), keep[some]) for candidates, keep in kept], at_once)
                    for some in torch.split(pairs, max(1, at_once // (4 * most)))
                ]
            )
        return Taken(rows[pairs], ranks[pairs], counts[pairs], negatives)

    def _kept(self, candidates: Candidates, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return the runs of `keep` candidates of each pair."""
        if self.rule.negative_order == "hardest":
            return candidates.nearest(keep)
        return candidates.drawn(keep, self._rand)

    def _listed(self, runs: list[tuple[Tensor, Tensor]], at_once: int) -> Tensor:
        """Write out runs of partial and of disjoint negatives, pair after pair."""
        starts, lengths = (torch.cat(part, dim=1) for part in zip(*runs, strict=True))
        return self.negatives.listed(starts, lengths, at_once=at_once)

    def _window(self, rows: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first rank, and that after the last, which stand in the distance relation to a positive."""
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
        """Return the first rank that is at least `gap` farther than the positive."""
        offset = rows * self.num_refs
        positive_distance = self.distance[offset + ranks]
        low, high = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        for _ in range(self.num_refs.bit_length()):
            middle = (low + high) // 2
            distance = self.distance[offset + middle.clamp(max=self.num_refs - 1)]
            nearer = (distance - positive_distance < gap) & (middle < high)
            low, high = torch.where(nearer, middle + 1, low), torch.where(nearer, high, middle)
        return low

    def _within_caps(self, rows: Tensor, num_partial: Tensor, num_disjoint: Tensor) -> tuple[Tensor, Tensor]:
        """Cut to what the caps leave, pair after pair, partial first, and count it as taken."""
        num_partial = num_partial.clamp(max=self.partial_cap)
        num_disjoint = num_disjoint.clamp(max=self.disjoint_cap)
        if self.rule.max_triplets_per_anchor is not None:
            wanted = num_partial + num_disjoint
            before = wanted.cumsum(0) - wanted
            pairs = torch.bincount(rows, minlength=self.num_rows)
            before -= before[(pairs.cumsum(0) - pairs)[rows]]
            room = (self.anchor_cap - self.taken[rows] - before).clamp(min=0)
            num_partial = torch.minimum(num_partial, room)
            num_disjoint = torch.minimum(num_disjoint, room - num_partial)
            self.taken.index_add_(0, rows, num_partial + num_disjoint)
        return num_partial, num_disjoint

    def _rand(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        device = self.distance.device if self.generator is None else self.generator.device
        return torch.rand(*shape, generator=self.generator, dtype=dtype, device=device).to(self.distance.device)


def _by_row(taken: Taken) -> Taken:
    """Sort pairs by anchor, those of an anchor as they were."""
    rows, ranks, counts, negatives = taken
    order = rows.argsort(stable=True)
    first, counts = (counts.cumsum(0) - counts)[order], counts[order]
    place = repeat(first - (counts.cumsum(0) - counts), counts)
    return Taken(
        rows[order], ranks[order], counts, negatives[place.add_(torch.arange(len(place), device=place.device))]
    )


def _cap(cap: int | None, most: int) -> int:
    return most if cap is None else min(cap, most)


def _dense_ranks(values: Tensor) -> Tensor:
    """Number the different values of each row from the smallest, 0, 1, ...; int32."""
    order = argsort_rows(values)
    ascending = values.gather(1, order)
    ranks = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    ranks[:, 1:] = (ascending[:, 1:] != ascending[:, :-1]).cumsum(1)
    return torch.empty_like(ranks).scatter_(1, order, ranks)
