"""The refs with the smallest lower bounds for each query, found block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlmetric.neighbors._bounds import Bounds
from mlmetric.neighbors._slices import slices

_GROUP = 32


class Candidates(NamedTuple):
    """The likely neighbours of some queries."""

    numbers: Tensor
    """Of refs, int64 `(R, C)`."""

    outside: Tensor
    """float64 `(R,)`: the squared distance of every other ref is at least this, in the frame's unit."""


def scan(bounds: Bounds, rows: Tensor, refs: Tensor, num_candidates: int, *, within: bool, block: int) -> Candidates:
    """Find the refs with the smallest lower bounds.

    Args:
        bounds: Between all queries and all refs.
        rows: Numbers of the queries to search for, ascending.
        refs: Numbers of the refs to search among, ascending.
        num_candidates: How many to find, at most those that every query can have.
        within: Whether queries and refs are the same rows, so that none finds itself.
        block: How many rows are compared with as many at once.

    Returns:
        The candidates of each of `rows`.
    """
    kept = _Kept(len(rows), num_candidates, bounds.dtype, rows.device, max_pending=max(block**2 // 8, 2**12))
    # Each product serves both of its sides where they are the same rows.
    symmetric = within and torch.equal(rows, refs)

    def compare(part: slice, left: Any, ref_part: slice, right: Any) -> None:
        lower = bounds.between(left, right)
        if within:
            exclude_themselves(lower, rows[part], refs[ref_part])
        kept.offer(part, lower, refs[ref_part])
        if symmetric and ref_part.start > part.start:
            kept.offer(ref_part, lower, refs[part], dim=0)

    for part in slices(len(rows), block):
        left = bounds.left(rows[part])
        for ref_part in slices(len(refs), block):
            if symmetric and ref_part.start < part.start:
                continue
            right = bounds.right(refs[ref_part])
            half = (part.stop - part.start) // 2
            if symmetric and ref_part.start == part.start and half:  # of the four quarters one mirrors another
                upper, under = slice(part.start, part.start + half), slice(part.start + half, part.stop)
                left_upper, left_under = bounds.cut(left, half)
                right_upper, right_under = bounds.cut(right, half)
                compare(upper, left_upper, upper, right_upper)
                compare(upper, left_upper, under, right_under)
                compare(under, left_under, under, right_under)
            else:
                compare(part, left, ref_part, right)
        kept.settle()
    num_others = len(refs) - (torch.isin(rows, refs, assume_unique=True).long() if within else torch.zeros_like(rows))
    outside = kept.values[:, -1].double() * bounds.to_squares
    return Candidates(kept.numbers, outside.masked_fill(num_others <= num_candidates, torch.inf))


def pairs_within(
    bounds: Bounds, rows: Tensor, refs: Tensor, reach: Tensor, *, within: bool, block: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Find every ref whose lower bound does not exceed a reach.

    Args:
        bounds: Between all queries and all refs.
        rows: Numbers of the queries to search for, ascending.
        refs: Numbers of the refs to search among, ascending.
        reach: A squared distance for each of `rows`, in the frame's unit.
        within: Whether queries and refs are the same rows, so that none finds itself.
        block: How many rows are compared with as many at once.

    Yields:
        Places in `rows`, and numbers of refs, ordered by place and then by number: all pairs of some of the rows.
    """
    reach = reach / bounds.to_squares
    # Fewer rows than in a scan, for all their pairs may have to be held.
    for part in slices(len(rows), min(block, block**2 // (8 * len(refs)))):
        left = bounds.left(rows[part])
        found = []
        for ref_part in slices(len(refs), block):
            lower = bounds.between(left, bounds.right(refs[ref_part]))
            if within:
                exclude_themselves(lower, rows[part], refs[ref_part])
            places, columns = (lower <= reach[part, None]).nonzero(as_tuple=True)
            found.append((places + part.start, refs[ref_part][columns]))
        places, numbers = (torch.cat(side) for side in zip(*found, strict=True))
        order = places.argsort(stable=True)
        yield places[order], numbers[order]


def exclude_themselves(lower: Tensor, rows: Tensor, refs: Tensor) -> None:
    """Set the bound of each row to itself to infinity; the numbers of both sides are ascending."""
    if rows[-1] < refs[0] or refs[-1] < rows[0]:
        return
    columns = torch.searchsorted(refs, rows).clamp_(max=len(refs) - 1)
    itself = (refs[columns] == rows).nonzero().squeeze(1)
    lower[itself, columns[itself]] = torch.inf


class _Kept:
    """The smallest values that each row has been offered, and the numbers that they belong to.

    The first values fill a row. After that few are small enough to matter, and these wait, row by row in a list, until
    they are many or the last is in.
    """

    def __init__(
        self, num_rows: int, num_kept: int, dtype: torch.dtype, device: torch.device, *, max_pending: int
    ) -> None:
        self.values = torch.full((num_rows, num_kept), torch.inf, dtype=dtype, device=device)
        self.numbers = torch.zeros((num_rows, num_kept), dtype=torch.int64, device=device)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._max_pending = max_pending

    def offer(self, part: slice, values: Tensor, numbers: Tensor, *, dim: int = 1) -> None:
        """Take what is small of `values` along `dim`, which are those of `numbers`, for the rows of `part`."""
        # One pass over all values: few groups of them hold one that is small enough, and only these are looked at.
        num_groups = values.shape[dim] // _GROUP
        grouped = num_groups * _GROUP
        head, tail = values.narrow(dim, 0, grouped), values.narrow(dim, grouped, values.shape[dim] - grouped)
        shape = [*head.shape]
        shape[dim : dim + 1] = [num_groups, _GROUP]
        minima = head.reshape(shape).amin(dim + 1)
        if dim == 0:
            head, tail, minima = head.T, tail.T, minima.T
        largest = self.values[part, -1]
        if bool(largest.isinf().any()):
            self._fill(part, head, tail, minima, numbers)
        else:
            rows, groups = (minima < largest[:, None]).nonzero(as_tuple=True)
            members = _members(groups)
            found = head[rows[:, None], members]
            pairs, places = (found < largest[rows, None]).nonzero(as_tuple=True)
            self._wait(part, rows[pairs], numbers[members[pairs, places]], found[pairs, places])
            rows, columns = (tail < largest[:, None]).nonzero(as_tuple=True)
            self._wait(part, rows, numbers[grouped + columns], tail[rows, columns])

    def _fill(self, part: slice, head: Tensor, tail: Tensor, minima: Tensor, numbers: Tensor) -> None:
        num_kept = self.values.shape[1]
        # The k smallest values lie in the k groups with the smallest minima.
        members = _members(minima.topk(min(num_kept, minima.shape[1]), largest=False).indices).flatten(1)
        offered = torch.cat([self.values[part], head.gather(1, members), tail], dim=1)
        rest = numbers[head.shape[1] :].expand(len(tail), -1)
        offered_numbers = torch.cat([self.numbers[part], numbers[members], rest], dim=1)
        self.values[part], order = offered.topk(num_kept, largest=False)
        self.numbers[part] = offered_numbers.gather(1, order)

    def _wait(self, part: slice, rows: Tensor, numbers: Tensor, values: Tensor) -> None:
        if len(rows):
            self._pending.append((rows + part.start, numbers, values))
            if sum(len(waiting) for waiting, _, _ in self._pending) > self._max_pending:
                self.settle()

    def settle(self) -> None:
        """Merge what waits."""
        if not self._pending:
            return
        rows, numbers, values = (torch.cat(side) for side in zip(*self._pending, strict=True))
        num_kept = self.values.shape[1]
        touched = rows.bincount(minlength=len(self.values)).nonzero().squeeze(1)
        # Places in `touched`, so that rows for which nothing waits are left alone.
        places = torch.arange(len(touched), device=rows.device).repeat_interleave(num_kept)
        places = torch.cat([places, torch.searchsorted(touched, rows)])
        values = torch.cat([self.values[touched].flatten(), values])
        numbers = torch.cat([self.numbers[touched].flatten(), numbers])
        order = values.argsort()
        order = order[places[order].argsort(stable=True)]
        counts = places.bincount()
        chosen = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(num_kept, device=order.device)]
        self.values[touched], self.numbers[touched] = values[chosen], numbers[chosen]
        self._pending = []


def _members(groups: Tensor) -> Tensor:
    """Return the columns of groups, in a dimension of their own."""
    return groups[..., None] * _GROUP + torch.arange(_GROUP, device=groups.device)
