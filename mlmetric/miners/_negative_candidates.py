"""Candidate negatives of (anchor, positive) pairs, and the selection of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mlmetric.miners._wavelet_matrix import WaveletMatrix

Rand = Callable[..., Tensor]
"""A function that returns uniform random numbers in [0, 1), float64, of a shape."""


@dataclass(frozen=True)
class NegativeCandidates:
    """Candidate negatives of one kind, partial or disjoint, for each of P (anchor, positive) pairs.

    Attributes:
        refs: References of the anchors. The highest bit of a level is set if the reference is partial.
        partial: Whether the candidates are partial negatives; otherwise they are disjoint ones.
        rows: Row of the anchor, shape `(P,)`.
        begin: Lowest distance rank of a candidate, shape `(P,)`.
        end: Highest distance rank of a candidate plus 1, shape `(P,)`.
        level: Level of the positive, shape `(P,)`.
    """

    refs: WaveletMatrix
    partial: bool
    rows: Tensor
    begin: Tensor
    end: Tensor
    level: Tensor

    @cached_property
    def runs(self) -> tuple[Tensor, Tensor]:
        """Starts and lengths of the runs of candidates in `refs`, `(P, any)` each."""
        highest_bit = 1 << (self.refs.num_bits - 1)
        if not self.partial:
            return self.refs.runs(self.rows, self.begin, self.end, self.level.clamp(max=highest_bit))
        starts, lengths = self.refs.runs(self.rows, self.begin, self.end, self.level)
        return starts[:, 1:], lengths[:, 1:].masked_fill((self.level < highest_bit)[:, None], 0)

    @cached_property
    def counts(self) -> Tensor:
        """Number of candidates of each pair, shape `(P,)`."""
        return self.runs[1].sum(1)

    def subset(self, pairs: Tensor) -> NegativeCandidates:
        """Return the candidates of some of the pairs, by their indices."""
        rows, begin, end, level = (part[pairs] for part in (self.rows, self.begin, self.end, self.level))
        return NegativeCandidates(self.refs, self.partial, rows, begin, end, level)

    def nearest(self, num: Tensor) -> tuple[Tensor, Tensor]:
        """Return the runs of the `num` nearest candidates of each pair."""
        low, high = self.begin, self.end
        for _ in range(self.refs.num_refs.bit_length()):
            middle = (low + high) // 2
            enough = replace(self, end=middle).counts >= num
            low, high = torch.where(enough, low, torch.minimum(middle + 1, high)), torch.where(enough, middle, high)
        return replace(self, end=high).runs

    def sample(self, num: Tensor, rand: Rand) -> tuple[Tensor, Tensor]:
        """Return the runs of `num` candidates of each pair, sampled uniformly without replacement."""
        starts, lengths = self.runs
        sampled = sample_without_replacement(self.counts, num, rand)
        if sampled.shape[1] == 0:
            return sampled, sampled
        ends = lengths.cumsum(1)
        run = torch.searchsorted(ends, sampled, right=True).clamp(max=ends.shape[1] - 1)
        column = torch.arange(sampled.shape[1], device=num.device)
        return (starts - ends + lengths).gather(1, run) + sampled, (column < num[:, None]).long()


def sample_without_replacement(population: Tensor, num: Tensor, rand: Rand) -> Tensor:
    """Sample `num` different integers below `population`, each set of them with the same probability, for each row.

    Time and memory are proportional to the size of the sample, not of the population.

    Args:
        population: Shape `(P,)`, int64.
        num: Shape `(P,)`, int64, at most `population`.
        rand: Source of random numbers.

    Returns:
        Shape `(P, largest num)`, int64; only the first `num[i]` entries of row i are valid.
    """
    width = int(num.max()) if len(num) else 0
    sparse = 4 * num < population
    sampled = num.new_zeros(len(num), width)
    sampled[sparse] = _sample_by_rejection(population[sparse], num[sparse], width, rand)
    sampled[~sparse] = _sample_by_keys(population[~sparse], width, rand)
    return sampled


def _sample_by_rejection(population: Tensor, num: Tensor, width: int, rand: Rand) -> Tensor:
    """Sample with replacement, and sample duplicates again until there are none."""
    column = torch.arange(width, device=num.device)
    sampled = _randint(population[:, None].expand(-1, width), rand)
    sampled = torch.where(column < num[:, None], sampled, -1 - column)  # invalid entries are never duplicates
    while width > 1:
        sampled = sampled.sort(dim=1, descending=True).values
        row, column = (sampled[:, 1:] == sampled[:, :-1]).nonzero(as_tuple=True)
        if len(row) == 0:
            break
        sampled[row, column] = _randint(population[row], rand)
    return sampled


def _randint(high: Tensor, rand: Rand) -> Tensor:
    return torch.minimum((rand(*high.shape) * high).long(), high - 1)


def _sample_by_keys(population: Tensor, width: int, rand: Rand) -> Tensor:
    """Assign a random key to each integer, and return the integers with the largest keys."""
    most = max(width, int(population.max()) if len(population) else 0)
    keys = rand(len(population), most)
    keys.masked_fill_(torch.arange(most, device=population.device) >= population[:, None], -1)
    return keys.topk(width, dim=1).indices
