"""Refs ranked by distance, among which those below a level of similarity are found without looking at each."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from mlmetric.miners._arrays import empty, repeat


class RankedRefs:
    """For each of R rows its M refs from the nearest to the farthest, and how similar each is: its level.

    The refs of a row that lie in a window of ranks and below a level are a handful of runs: stretches of `refs`, each
    from the nearest to the farthest. So they can be counted, drawn from and listed without a look at those that do not
    qualify. It is a wavelet matrix: at each bit of the levels, from the highest, the refs are split into those
    without and those with the bit, in order; a window of ranks stays a window on either side.

    Args:
        ranked: Shape `(R, M)`, int64: the refs of each row from the nearest to the farthest.
        levels: Shape `(R, M)`, int32, >= 0, in the order of `ranked`.
        num_bits: Of the largest level.

    Attributes:
        refs: Flat, int32: what the starts of runs point into.

    Source:
        Claude, Navarro and Ordonez, "The wavelet matrix: an efficient wavelet tree for large alphabets", Information
        Systems 47, 2015.
    """

    def __init__(self, ranked: Tensor, levels: Tensor, num_bits: int) -> None:
        self.num_rows, self.num_refs = ranked.shape
        self.num_bits = num_bits
        place = torch.arange(self.num_refs, dtype=torch.int32, device=ranked.device)
        split = torch.empty(num_bits, *ranked.shape, dtype=torch.int32, device=ranked.device)
        zeros_before = split.new_zeros(num_bits, self.num_rows, self.num_refs + 1)
        refs = ranked.to(torch.int32)
        for depth, bit in enumerate(reversed(range(num_bits))):
            without = (levels & (1 << bit)) == 0
            zeros = without.cumsum(1, dtype=torch.int32)
            zeros_before[depth, :, 1:] = zeros
            target = torch.where(without, zeros - 1, (place + zeros[:, -1:]).sub_(zeros)).long()
            levels = torch.empty_like(levels).scatter_(1, target, levels)
            refs = split[depth].scatter_(1, target, refs)
        self.refs, self._zeros_before = split.flatten(), zeros_before.flatten(1)

    def runs(self, rows: Tensor, begin: Tensor, end: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        """Find the refs of `rows` with ranks in `[begin, end)` and levels under `below`.

        Args:
            rows: Shape `(P,)`, int64, in `[0, R)`.
            begin: Shape `(P,)`, int64, in `[0, M]`.
            end: Shape `(P,)`, int64, in `[begin, M]`.
            below: Shape `(P,)`, in `[0, 2**num_bits)`.

        Returns:
            Starts of runs in `refs` and their lengths, int64, shape `(P, num_bits)` each. The run of column 0 holds
            the refs without the highest bit where `below` has it; that of column k those which agree with `below`
            in the k highest bits and then have no bit where `below` has one.
        """
        starts, lengths = [], []
        for depth in range(self.num_bits):
            zeros_before, offset = self._zeros_before[depth], rows * (self.num_refs + 1)
            zero_begin = zeros_before.index_select(0, offset + begin).long()
            zero_end = zeros_before.index_select(0, offset + end).long()
            has_bit = (below & (1 << (self.num_bits - 1 - depth))) != 0
            starts.append((depth * self.num_rows + rows) * self.num_refs + zero_begin)
            lengths.append((zero_end - zero_begin).masked_fill(~has_bit, 0))
            zeros = zeros_before.index_select(0, offset + self.num_refs)
            begin = torch.where(has_bit, zeros + begin - zero_begin, zero_begin)
            end = torch.where(has_bit, zeros + end - zero_end, zero_end)
        return torch.stack(starts, 1), torch.stack(lengths, 1)

    def listed(self, starts: Tensor, lengths: Tensor, *, at_once: int) -> Tensor:
        """Write out the refs of runs, one run after the other.

        Args:
            starts: Shape `(P, K)`.
            lengths: Shape `(P, K)`.
            at_once: How many refs are looked up together, a run more or less.

        Returns:
            int32, shape `(sum of the lengths,)`.
        """
        used = lengths.flatten().nonzero().squeeze(1)
        starts, lengths = (part.flatten().index_select(0, used) for part in (starts, lengths))
        ends = lengths.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        shifts = starts - (ends - lengths)
        marks = at_once * torch.arange(1, max(1, -(-total // at_once)), device=starts.device)
        first_runs = [0, *(torch.searchsorted(ends, marks) + 1).tolist(), len(ends)]
        found, done = empty(total, torch.int32, self.refs.device), 0
        for first, last in pairwise(first_runs):
            place = repeat(shifts[first:last], lengths[first:last])
            place += torch.arange(done, done + len(place), device=place.device)
            torch.index_select(self.refs, 0, place, out=found[done : done + len(place)])
            done += len(place)
        return found
