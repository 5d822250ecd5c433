"""The negatives that qualify for an anchor and its positive, as runs, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mlmetric.miners._draws import Rand, draw_distinct
from mlmetric.miners._ranked_refs import RankedRefs


@dataclass(frozen=True)
class Candidates:
    """The negatives of one kind for each of P (anchor, positive) pairs.

    Attributes:
        refs: Of the anchors. The highest bit of a level says that a ref is partial.
        partial: The kind: partial, or disjoint.
        rows: Which anchor, shape `(P,)`.
        begin: First rank of distance that qualifies, shape `(P,)`.
        end: The rank after the last, shape `(P,)`.
        level: Of the positive, shape `(P,)`.
    """

    refs: RankedRefs
    partial: bool
    rows: Tensor
    begin: Tensor
    end: Tensor
    level: Tensor

    @cached_property
    def runs(self) -> tuple[Tensor, Tensor]:
        """Starts and lengths of the runs in `refs`, `(P, any)` each."""
        highest_bit = 1 << (self.refs.num_bits - 1)
        if not self.partial:
            return self.refs.runs(self.rows, self.begin, self.end, self.level.clamp(max=highest_bit))
        starts, lengths = self.refs.runs(self.rows, self.begin, self.end, self.level)
        return starts[:, 1:], lengths[:, 1:].masked_fill((self.level < highest_bit)[:, None], 0)

    @cached_property
    def number(self) -> Tensor:
        """How many qualify, `(P,)`."""
        return self.runs[1].sum(1)

    def of(self, pairs: Tensor) -> Candidates:
        """Return those of some pairs."""
        rows, begin, end, level = (part[pairs] for part in (self.rows, self.begin, self.end, self.level))
        return Candidates(self.refs, self.partial, rows, begin, end, level)

    def nearest(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return the runs of the `keep` nearest."""
        low, high = self.begin, self.end
        for _ in range(self.refs.num_refs.bit_length()):
            middle = (low + high) // 2
            enough = replace(self, end=middle).number >= keep
            low, high = torch.where(enough, low, torch.minimum(middle + 1, high)), torch.where(enough, middle, high)
        return replace(self, end=high).runs

    def drawn(self, keep: Tensor, rand: Rand) -> tuple[Tensor, Tensor]:
        """Return runs of `keep` of them, drawn uniformly."""
        starts, lengths = self.runs
        picks = draw_distinct(self.number, keep, rand)
        if picks.shape[1] == 0:
            return picks, picks
        ends = lengths.cumsum(1)
        run = torch.searchsorted(ends, picks, right=True).clamp(max=ends.shape[1] - 1)
        place = torch.arange(picks.shape[1], device=keep.device)
        return (starts - ends + lengths).gather(1, run) + picks, (place < keep[:, None]).long()
