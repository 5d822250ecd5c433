"""The selection of triplets from a distance and a similarity matrix, without a thought of embeddings or labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TripletKind = Literal["hard", "semihard", "all", "easy"]
Triplets = tuple[Tensor, Tensor, Tensor]

# Elements of a (pairs, M) mask that are looked at together: bounds the memory beyond O(N*M) and the output.
_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True, kw_only=True)
class TripletRule:
    """Which triplets qualify, and which of them the caps keep; see `MultiLabelSemiHardMiner` for each field."""

    positive_threshold: float
    partial_threshold: float
    type_of_triplets: TripletKind
    margin: float
    max_partial_per_positive: int | None
    max_disjoint_per_positive: int | None
    max_triplets_per_anchor: int | None
    positive_order: Literal["farthest", "random"]
    disjoint_negatives: Literal["violating", "any"]
    negative_order: Literal["random", "hardest"]


def select_triplets(
    distance: Tensor,
    similarity: Tensor,
    rule: TripletRule,
    *,
    self_pairs: bool,
    generator: torch.Generator | None,
) -> Triplets:
    """Select triplets by `rule`.

    Args:
        distance: Shape `(N, M)`, smaller is nearer.
        similarity: Shape `(N, M)`, larger is more alike.
        rule: What qualifies and what is kept.
        self_pairs: Whether ref i is anchor i, and so neither its positive nor its negative.
        generator: Source of random draws.

    Returns:
        Anchors, positives and negatives, int64, shape `(T,)` each: by anchor, then in the order in which its
        positives are visited, then partial before disjoint negatives.
    """
    return _Selection(distance, similarity, rule, self_pairs, generator).run()


class _Selection:
    """One call: the matrices, and how many triplets each anchor has so far."""

    def __init__(
        self,
        distance: Tensor,
        similarity: Tensor,
        rule: TripletRule,
        self_pairs: bool,
        generator: torch.Generator | None,
    ) -> None:
        self.distance, self.similarity, self.rule = distance, similarity, rule
        self.self_pairs, self.generator = self_pairs, generator
        self.num_anchors, self.num_refs = distance.shape
        self.refs = torch.arange(self.num_refs, device=distance.device)
        self.taken = torch.zeros(self.num_anchors, dtype=torch.int64, device=distance.device)

    def run(self) -> Triplets:
        found = [
            self._within_cap(*self._triplets_of(anchors, positives)) for anchors, positives in self._visited_pairs()
        ]
        if not found:
            return self.refs.new_empty(0), self.refs.new_empty(0), self.refs.new_empty(0)
        anchors, positives, negatives = (torch.cat(part) for part in zip(*found, strict=True))
        if self.rule.max_triplets_per_anchor is not None:
            order = anchors.argsort(stable=True)
            anchors, positives, negatives = anchors[order], positives[order], negatives[order]
        return anchors, positives, negatives

    def _visited_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (anchor, positive) pairs in the order of the visit, as long as an anchor wants more triplets."""
        positive = self.similarity > self.rule.positive_threshold
        if self.self_pairs:
            positive.fill_diagonal_(False)
        key = self.distance if self.rule.positive_order == "farthest" else self._rand(self.num_anchors, self.num_refs)
        order = key.masked_fill(~positive, -torch.inf).argsort(dim=1, descending=True, stable=True)
        num_positives = positive.sum(1)

        cap = self.rule.max_triplets_per_anchor
        active = num_positives.nonzero().squeeze(1)
        start, width = 0, self.num_refs if cap is None else 1
        while len(active) > 0:
            rows, ranks = (self.refs[start : start + width] < num_positives[active, None]).nonzero(as_tuple=True)
            anchors, positives = active[rows], order[active[rows], start + ranks]
            pairs_at_once = max(1, _CHUNK_ELEMENTS // self.num_refs)
            yield from zip(torch.split(anchors, pairs_at_once), torch.split(positives, pairs_at_once), strict=True)
            start, width = start + width, 2 * width
            wants_more = num_positives[active] > start
            if cap is not None:
                wants_more &= self.taken[active] < cap
            active = active[wants_more]

    def _triplets_of(self, anchors: Tensor, positives: Tensor) -> Triplets:
        """Pair each (anchor, positive) with the negatives that its own caps keep."""
        rule = self.rule
        gap = self.distance[anchors] - self.distance[anchors, positives][:, None]
        similarity = self.similarity[anchors]
        candidates = similarity < self.similarity[anchors, positives][:, None]
        if self.self_pairs:
            candidates[torch.arange(len(anchors), device=anchors.device), anchors] = False
        related = self._has_relation(gap)
        shares = similarity > rule.partial_threshold
        partial = candidates & shares & related
        disjoint = candidates & ~shares
        if rule.disjoint_negatives == "violating":
            disjoint &= related

        kept_partial, partial_refs = self._keep(partial, rule.max_partial_per_positive, gap)
        kept_disjoint, disjoint_refs = self._keep(disjoint, rule.max_disjoint_per_positive, gap)
        rows, columns = torch.cat([kept_partial, kept_disjoint], dim=1).nonzero(as_tuple=True)
        negatives = torch.cat([partial_refs, disjoint_refs], dim=1)[rows, columns]
        return anchors[rows], positives[rows], negatives

    def _has_relation(self, gap: Tensor) -> Tensor:
        match self.rule.type_of_triplets:
            case "hard":
                return gap < 0
            case "semihard":
                return (gap >= 0) & (gap < self.rule.margin)
            case "all":
                return gap < self.rule.margin
            case "easy":
                return gap >= self.rule.margin

    def _keep(self, qualifies: Tensor, cap: int | None, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return which entries of a `(pairs, W)` matrix of refs are kept, and that matrix."""
        caps = [limit for limit in (cap, self.rule.max_triplets_per_anchor) if limit is not None]
        if not caps:
            return qualifies, self.refs.expand(qualifies.shape)
        key = self._rand(*qualifies.shape) if self.rule.negative_order == "random" else -gap
        refs = key.masked_fill(~qualifies, -torch.inf).topk(min(*caps, self.num_refs), dim=1).indices
        return qualifies.gather(1, refs), refs

    def _within_cap(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Triplets:
        cap = self.rule.max_triplets_per_anchor
        if cap is None:
            return anchors, positives, negatives
        counts = torch.bincount(anchors, minlength=self.num_anchors)
        first = counts.cumsum(0) - counts
        position = torch.arange(len(anchors), device=anchors.device) - first[anchors]
        kept = position + self.taken[anchors] < cap
        self.taken += counts
        return anchors[kept], positives[kept], negatives[kept]

    def _rand(self, rows: int, columns: int) -> Tensor:
        device = self.distance.device if self.generator is None else self.generator.device
        return torch.rand(rows, columns, generator=self.generator, device=device).to(self.distance.device)
