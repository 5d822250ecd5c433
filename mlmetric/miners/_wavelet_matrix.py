"""A wavelet matrix of the references of each anchor, for queries by distance rank and similarity level."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from mlmetric.miners._array_ops import empty, repeat


class WaveletMatrix:
    """Wavelet matrix of M references for each of R rows, ordered by distance, with a similarity level each.

    The references of a row that lie in a range of distance ranks and below a level form at most `num_bits` runs
    (contiguous ranges of `refs`), each from the nearest to the farthest. So they can be counted, sampled and listed
    without a pass over the references that do not qualify. For each bit of the levels, from the highest to the lowest,
    the references are split, in order, into those without and those with the bit; a range of ranks is a range in either
    part.

    Args:
        ranked: References of each row from the nearest to the farthest, shape `(R, M)`, int64.
        levels: Similarity levels in the order of `ranked`, shape `(R, M)`, int32, >= 0.
        num_bits: Number of bits of the largest level.

    Attributes:
        refs: References, flat, int32; the starts of runs are indices into it.

    Source:
        Claude, Navarro and Ordonez, "The wavelet matrix: an efficient wavelet tree for large alphabets", Information
        Systems 47, 2015.
    """

    def __init__(self, ranked: Tensor, levels: Tensor, num_bits: int) -> None:
        self.num_rows, self.num_refs = ranked.shape
        self.num_bits = num_bits
        position = torch.arange(self.num_refs, dtype=torch.int32, device=ranked.device)
        split = torch.empty(num_bits, *ranked.shape, dtype=torch.int32, device=ranked.device)
        zeros_before = split.new_zeros(num_bits, self.num_rows, self.num_refs + 1)
        refs = ranked.to(torch.int32)
        for depth, bit in enumerate(reversed(range(num_bits))):
            without = (levels & (1 << bit)) == 0
            zeros = without.cumsum(1, dtype=torch.int32)
            zeros_before[depth, :, 1:] = zeros
            target = torch.where(without, zeros - 1, (position + zeros[:, -1:]).sub_(zeros)).long()
            levels = torch.empty_like(levels).scatter_(1, target, levels)
            refs = split[depth].scatter_(1, target, refs)
        self.refs, self._zeros_before = split.flatten(), zeros_before.flatten(1)

    def runs(self, rows: Tensor, begin: Tensor, end: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        """Find the references of `rows` with ranks in `[begin, end)` and levels below `below`.

        Args:
            rows: Shape `(P,)`, int64, in `[0, R)`.
            begin: Shape `(P,)`, int64, in `[0, M]`.
            end: Shape `(P,)`, int64, in `[begin, M]`.
            below: Shape `(P,)`, in `[0, 2**num_bits)`.

        Returns:
            Starts of runs in `refs` and their lengths, int64, shape `(P, num_bits)` each. The run in column k contains
            the references whose level equals `below` in the k highest bits, and whose next bit is 0 where that of
            `below` is 1.
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

    def expand(self, starts: Tensor, lengths: Tensor, *, chunk_size: int) -> Tensor:
        """Return the references of runs, one run after the other.

        Args:
            starts: Shape `(P, K)`.
            lengths: Shape `(P, K)`.
            chunk_size: Approximate number of references that are looked up together.

        Returns:
            int32, shape `(sum of the lengths,)`.
        """
        used = lengths.flatten().nonzero().squeeze(1)
        starts, lengths = (part.flatten().index_select(0, used) for part in (starts, lengths))
        ends = lengths.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        shifts = starts - (ends - lengths)
        marks = chunk_size * torch.arange(1, max(1, -(-total // chunk_size)), device=starts.device)
        first_runs = [0, *(torch.searchsorted(ends, marks) + 1).tolist(), len(ends)]
        found, done = empty(total, torch.int32, self.refs.device), 0
        for first, last in pairwise(first_runs):
            position = repeat(shifts[first:last], lengths[first:last])
            position += torch.arange(done, done + len(position), device=position.device)
            torch.index_select(self.refs, 0, position, out=found[done : done + len(position)])
            done += len(position)
        return found
