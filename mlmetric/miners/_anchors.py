"""Anchors that visit their positives and take negatives for each of them, as many as the caps allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.miners._arrays import argsort_rows, repeat
from mlmetric.miners._ranked_refs import RankedRefs

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


class Runs(NamedTuple):
    """Triplets before they are written out: an anchor, a positive, and a stretch of `Anchors.refs`; `(R,)` each."""

    anchors: Tensor
    positives: Tensor
    starts: Tensor
    lengths: Tensor


class _Candidates(NamedTuple):
    """The negatives of one kind that qualify for each of P (anchor, positive) pairs."""

    partial: bool
    rows: Tensor
    begin: Tensor
    end: Tensor
    level: Tensor
    starts: Tensor
    lengths: Tensor

    @property
    def number(self) -> Tensor:
        return self.lengths.sum(1)


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
        self.ranked = argsort_rows(distance)
        self.distance = distance.gather(1, self.ranked).flatten()
        similarity = similarity.gather(1, self.ranked)
        self.positive = similarity > rule.positive_threshold
        levels = _dense_ranks(similarity)
        # The highest bit says that a ref is partial, the others how similar it is: below a level lie whole kinds.
        self.partial_level = 1 << int(levels.max()).bit_length()
        levels += (similarity > rule.partial_threshold).int() * self.partial_level
        if self_pairs:
            rows = torch.arange(first, first + self.num_rows, device=distance.device)
            is_self = self.ranked == rows[:, None]
            self.positive &= ~is_self
            levels.masked_fill_(is_self, 2 * self.partial_level - 1)  # never below any level
        self.levels = levels.flatten()
        self.negatives = RankedRefs(self.ranked, levels, self.partial_level.bit_length())
        self.taken = torch.zeros(self.num_rows, dtype=torch.int64, device=distance.device)

    @property
    def refs(self) -> Tensor:
        """What the starts of `Runs` point into: indices of refs, flat, int32."""
        return self.negatives.refs

    @property
    def width(self) -> int:
        """Bound on the runs that one (anchor, positive) pair needs."""
        most = _cap(self.rule.max_triplets_per_anchor, self.num_refs)
        drawn = [min(cap, most) for cap in (self.partial_cap, self.disjoint_cap) if self._draws(cap)]
        return max(self.negatives.num_bits, *drawn, 1)

    def _draws(self, cap: int) -> bool:
        """Say whether some candidates are left out under a cap for each positive."""
        return cap < self.num_refs or self.rule.max_triplets_per_anchor is not None

    def take(self, *, pairs_at_once: int) -> Runs:
        """Visit positives until each anchor has its triplets, or no positive is left."""
        steps = [self._take(*pairs) for pairs in self._visits(pairs_at_once)]
        if not steps:
            nothing = self.ranked.new_empty(0)
            return Runs(nothing, nothing, nothing, nothing)
        rows, ranks, starts, lengths = (torch.cat(part) for part in zip(*steps, strict=True))
        if self.rule.max_triplets_per_anchor is not None:
            order = rows.argsort(stable=True)
            rows, ranks, starts, lengths = rows[order], ranks[order], starts[order], lengths[order]
        return Runs(rows + self.first, self.ranked[rows, ranks], starts, lengths)

    def _visits(self, pairs_at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and ranks of positives in the order of the visit, as long as an anchor wants more triplets."""
        num_positives = self.positive.sum(1)
        ranks = self._visiting_order(num_positives)
        first = num_positives.cumsum(0) - num_positives

        cap = self.rule.max_triplets_per_anchor
        active = num_positives.nonzero().squeeze(1)
        start, width = 0, self.num_refs if cap is None else self._positives_needed(cap)
        while len(active) > 0:
            visits = (num_positives[active] - start).clamp(max=width)
            rows = repeat(active, visits)
            nth = torch.arange(len(rows), device=rows.device) - repeat(visits.cumsum(0) - visits, visits) + start
            visited = ranks[first[rows] + nth]
            yield from zip(torch.split(rows, pairs_at_once), torch.split(visited, pairs_at_once), strict=True)
            start, width = start + width, 2 * width
            wants_more = num_positives[active] > start
            if cap is not None:
                wants_more &= self.taken[active] < cap
            active = active[wants_more]

    def _visiting_order(self, num_positives: Tensor) -> Tensor:
        """Return the ranks of all positives, row by row, flat."""
        if self.rule.positive_order == "farthest":
            return self.num_refs - 1 - self.positive.flip(1).nonzero()[:, 1]
        key = self._rand(self.num_rows, self.num_refs).masked_fill(~self.positive, 2.0)
        place = torch.arange(self.num_refs, device=key.device)
        return argsort_rows(key)[place < num_positives[:, None]]

    def _positives_needed(self, cap: int) -> int:
        """Return how many positives an anchor visits at least, if all have negatives enough."""
        return -(-cap // max(1, self.partial_cap + self.disjoint_cap))

    def _take(self, rows: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take negatives for (anchor, positive) pairs, sorted by anchor: rows, ranks, starts, lengths of runs."""
        level = self.levels[rows * self.num_refs + ranks]
        begin, end = self._window(rows, ranks)
        partial = self._candidates(True, rows, begin, end, level)
        if self.rule.disjoint_negatives == "any":
            begin, end = torch.zeros_like(rows), torch.full_like(rows, self.num_refs)
        disjoint = self._candidates(False, rows, begin, end, level)

        num_partial = partial.number.clamp(max=self.partial_cap)
        num_disjoint = disjoint.number.clamp(max=self.disjoint_cap)
        if self.rule.max_triplets_per_anchor is not None:
            num_partial, num_disjoint = self._within_cap(
                rows, num_partial, num_disjoint, self.rule.max_triplets_per_anchor
            )
        kept = (
            self._drawn(partial, num_partial) if self._draws(self.partial_cap) else partial[-2:],
            self._drawn(disjoint, num_disjoint) if self._draws(self.disjoint_cap) else disjoint[-2:],
        )
        starts, lengths = (torch.cat(part, dim=1) for part in zip(*kept, strict=True))
        pairs, columns = lengths.nonzero(as_tuple=True)
        return rows[pairs], ranks[pairs], starts[pairs, columns], lengths[pairs, columns]

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

    def _candidates(self, partial: bool, rows: Tensor, begin: Tensor, end: Tensor, level: Tensor) -> _Candidates:
        """Find the negatives of a kind in windows of ranks, less similar than the positives of these levels."""
        if partial:
            starts, lengths = self.negatives.runs(rows, begin, end, level)
            starts, lengths = starts[:, 1:], lengths[:, 1:].masked_fill((level < self.partial_level)[:, None], 0)
        else:
            starts, lengths = self.negatives.runs(rows, begin, end, level.clamp(max=self.partial_level))
        return _Candidates(partial, rows, begin, end, level, starts, lengths)

    def _within_cap(self, rows: Tensor, num_partial: Tensor, num_disjoint: Tensor, cap: int) -> tuple[Tensor, Tensor]:
        """Cut to what `max_triplets_per_anchor` has left, pair after pair, partial first, and count it as taken."""
        wanted = num_partial + num_disjoint
        before = wanted.cumsum(0) - wanted
        pairs = torch.bincount(rows, minlength=self.num_rows)
        before -= before[(pairs.cumsum(0) - pairs)[rows]]
        room = (cap - self.taken[rows] - before).clamp(min=0)
        num_partial = torch.minimum(num_partial, room)
        num_disjoint = torch.minimum(num_disjoint, room - num_partial)
        self.taken.index_add_(0, rows, num_partial + num_disjoint)
        return num_partial, num_disjoint

    def _drawn(self, candidates: _Candidates, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return starts and lengths `(P, any)` of the runs of `keep` candidates of each pair."""
        if self.rule.negative_order == "hardest":
            nearest = candidates._replace(end=self._end_of_nearest(candidates, keep))
            return self._candidates(*nearest[:5])[-2:]
        picks = self._draw(candidates.number, keep)
        if picks.shape[1] == 0:
            return picks, picks
        ends = candidates.lengths.cumsum(1)
        run = torch.searchsorted(ends, picks, right=True).clamp(max=ends.shape[1] - 1)
        starts = (candidates.starts - ends + candidates.lengths).gather(1, run) + picks
        return starts, (torch.arange(picks.shape[1], device=keep.device) < keep[:, None]).long()

    def _end_of_nearest(self, candidates: _Candidates, keep: Tensor) -> Tensor:
        """Return the smallest end of each window with which `keep` candidates are left."""
        low, high = candidates.begin, candidates.end
        for _ in range(self.num_refs.bit_length()):
            middle = (low + high) // 2
            enough = self._candidates(*candidates._replace(end=middle)[:5]).number >= keep
            low, high = torch.where(enough, low, torch.minimum(middle + 1, high)), torch.where(enough, middle, high)
        return high

    def _draw(self, count: Tensor, keep: Tensor) -> Tensor:
        """Draw `keep` different numbers below `count` for each pair; what is beyond `keep` has no meaning.

        Source: Floyd's sampling, Bentley, "Programming pearls", Communications of the ACM 30(9), 1987.
        """
        width = int(keep.max()) if len(keep) else 0
        picks = count.new_zeros(len(count), width)
        for turn in range(width):
            last = count - keep + turn
            pick = torch.minimum((self._rand(len(count), dtype=torch.float64) * (last + 1)).long(), last)
            drawn_before = (picks[:, :turn] == pick[:, None]).any(1)
            picks[:, turn] = torch.where(drawn_before, last, pick)
        return picks

    def _rand(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        device = self.distance.device if self.generator is None else self.generator.device
        return torch.rand(*shape, generator=self.generator, dtype=dtype, device=device).to(self.distance.device)


def _cap(cap: int | None, num_refs: int) -> int:
    return num_refs if cap is None else min(cap, num_refs)


def _dense_ranks(values: Tensor) -> Tensor:
    """Number the different values of each row from the smallest, 0, 1, ...; int32."""
    order = argsort_rows(values)
    ascending = values.gather(1, order)
    ranks = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    ranks[:, 1:] = (ascending[:, 1:] != ascending[:, :-1]).cumsum(1)
    return torch.empty_like(ranks).scatter_(1, order, ranks)
