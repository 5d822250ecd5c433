"""Candidates for the nearest neighbours of each query: refs with the smallest lower bounds, found block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlmetric.neighbors._lower_bounds import LowerBounds
from mlmetric.neighbors._row_matrix import even_slices

_GROUP_SIZE = 32


class Candidates(NamedTuple):
    """Candidates for the nearest neighbours of some queries."""

    indices: Tensor
    """Indices of refs, int64 `(R, C)`."""

    min_of_others: Tensor
    """Lower bound of the squared distance of every other ref, in scaled differences, float64 `(R,)`."""


def find_candidates(
    bounds: LowerBounds, rows: Tensor, refs: Tensor, num_candidates: int, *, exclude_self: bool, block_size: int
) -> Candidates:
    """Find the refs with the smallest lower bounds.

    Args:
        bounds: Lower bounds between all queries and all refs.
        rows: Indices of the queries to search for, ascending.
        refs: Indices of the refs to search among, ascending.
        num_candidates: Number of candidates of each query, at most the number of refs that each query can have.
        exclude_self: Whether queries and refs are the same rows, so that each row is excluded from its own candidates.
        block_size: Number of rows on each side of one matrix product.

    Returns:
        The candidates of each of `rows`.
    """
    smallest = _RunningSmallest(
        len(rows), num_candidates, bounds.dtype, rows.device, max_pending=max(block_size**2 // 8, 2**12)
    )
    # If both sides are the same rows, each product is used for both.
    symmetric = exclude_self and torch.equal(rows, refs)

    def compare(part: slice, queries: Any, ref_part: slice, ref_block: Any) -> None:
        lower = bounds.between(queries, ref_block)
        if exclude_self:
            mask_self(lower, rows[part], refs[ref_part])
        smallest.update(part, lower, refs[ref_part])
        if symmetric and ref_part.start > part.start:
            smallest.update(ref_part, lower, refs[part], dim=0)

    for part in even_slices(len(rows), block_size):
        queries = bounds.prepare_queries(rows[part])
        for ref_part in even_slices(len(refs), block_size):
            if symmetric and ref_part.start < part.start:
                continue
            ref_block = bounds.prepare_refs(refs[ref_part])
            half = (part.stop - part.start) // 2
            if symmetric and ref_part.start == part.start and half:  # one quarter of the product mirrors another
                first, second = slice(part.start, part.start + half), slice(part.start + half, part.stop)
                first_queries, second_queries = bounds.split(queries, half)
                first_refs, second_refs = bounds.split(ref_block, half)
                compare(first, first_queries, first, first_refs)
                compare(first, first_queries, second, second_refs)
                compare(second, second_queries, second, second_refs)
            else:
                compare(part, queries, ref_part, ref_block)
        smallest.merge_pending()
    is_ref = torch.isin(rows, refs, assume_unique=True).long() if exclude_self else torch.zeros_like(rows)
    min_of_others = smallest.values[:, -1].double() * bounds.to_squared_distances
    return Candidates(smallest.indices, min_of_others.masked_fill(len(refs) - is_ref <= num_candidates, torch.inf))


def find_pairs_within(
    bounds: LowerBounds, rows: Tensor, refs: Tensor, max_squares: Tensor, *, exclude_self: bool, block_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Find all refs whose lower bound does not exceed a squared distance.

    Args:
        bounds: Lower bounds between all queries and all refs.
        rows: Indices of the queries to search for, ascending.
        refs: Indices of the refs to search among, ascending.
        max_squares: Highest squared distance for each of `rows`, in scaled differences.
        exclude_self: Whether queries and refs are the same rows, so that each row is excluded from its own pairs.
        block_size: Number of rows on each side of one matrix product.

    Yields:
        Positions in `rows` and indices of refs, sorted by position and then by index: all pairs of a part of the rows.
    """
    max_bounds = max_squares / bounds.to_squared_distances
    # Fewer rows than in `find_candidates`, because all pairs of a part may have to be stored.
    for part in even_slices(len(rows), min(block_size, block_size**2 // (8 * len(refs)))):
        queries = bounds.prepare_queries(rows[part])
        pairs = []
        for ref_part in even_slices(len(refs), block_size):
            lower = bounds.between(queries, bounds.prepare_refs(refs[ref_part]))
            if exclude_self:
                mask_self(lower, rows[part], refs[ref_part])
            positions, columns = (lower <= max_bounds[part, None]).nonzero(as_tuple=True)
            pairs.append((positions + part.start, refs[ref_part][columns]))
        positions, indices = (torch.cat(side) for side in zip(*pairs, strict=True))
        order = positions.argsort(stable=True)
        yield positions[order], indices[order]


def mask_self(lower: Tensor, rows: Tensor, refs: Tensor) -> None:
    """Set the bound between each row and itself to infinity; the indices of both sides must be ascending."""
    if rows[-1] < refs[0] or refs[-1] < rows[0]:
        return
    columns = torch.searchsorted(refs, rows).clamp_(max=len(refs) - 1)
    is_self = (refs[columns] == rows).nonzero().squeeze(1)
    lower[is_self, columns[is_self]] = torch.inf


class _RunningSmallest:
    """The k smallest values of each row so far, and their indices.

    The first values fill each row. After that few new values are small enough; these are stored in a list of pending
    values, and merged when the list is long or all values have been seen.
    """

    def __init__(self, num_rows: int, k: int, dtype: torch.dtype, device: torch.device, *, max_pending: int) -> None:
        self.values = torch.full((num_rows, k), torch.inf, dtype=dtype, device=device)
        self.indices = torch.zeros((num_rows, k), dtype=torch.int64, device=device)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._max_pending = max_pending

    def update(self, part: slice, values: Tensor, indices: Tensor, *, dim: int = 1) -> None:
        """Update the rows of `part` with `values`, whose entries along `dim` have these `indices`."""
        # One pass over all values: few groups contain a value that is small enough, and only these are searched.
        num_groups = values.shape[dim] // _GROUP_SIZE
        grouped = num_groups * _GROUP_SIZE
        head, tail = values.narrow(dim, 0, grouped), values.narrow(dim, grouped, values.shape[dim] - grouped)
        shape = [*head.shape]
        shape[dim : dim + 1] = [num_groups, _GROUP_SIZE]
        minima = head.reshape(shape).amin(dim + 1)
        if dim == 0:
            head, tail, minima = head.T, tail.T, minima.T
        largest = self.values[part, -1]
        if bool(largest.isinf().any()):
            self._fill(part, head, tail, minima, indices)
        else:
            rows, groups = (minima < largest[:, None]).nonzero(as_tuple=True)
            columns = _group_columns(groups)
            group_values = head[rows[:, None], columns]
            pairs, positions = (group_values < largest[rows, None]).nonzero(as_tuple=True)
            self._add_pending(part, rows[pairs], indices[columns[pairs, positions]], group_values[pairs, positions])
            rows, tail_columns = (tail < largest[:, None]).nonzero(as_tuple=True)
            self._add_pending(part, rows, indices[grouped + tail_columns], tail[rows, tail_columns])

    def _fill(self, part: slice, head: Tensor, tail: Tensor, minima: Tensor, indices: Tensor) -> None:
        k = self.values.shape[1]
        # The k smallest values lie in the k groups with the smallest minima.
        columns = _group_columns(minima.topk(min(k, minima.shape[1]), largest=False).indices).flatten(1)
        values = torch.cat([self.values[part], head.gather(1, columns), tail], dim=1)
        tail_indices = indices[head.shape[1] :].expand(len(tail), -1)
        all_indices = torch.cat([self.indices[part], indices[columns], tail_indices], dim=1)
        self.values[part], order = values.topk(k, largest=False)
        self.indices[part] = all_indices.gather(1, order)

    def _add_pending(self, part: slice, rows: Tensor, indices: Tensor, values: Tensor) -> None:
        if len(rows):
            self._pending.append((rows + part.start, indices, values))
            if sum(len(pending) for pending, _, _ in self._pending) > self._max_pending:
                self.merge_pending()

    def merge_pending(self) -> None:
        """Merge the pending values."""
        if not self._pending:
            return
        rows, indices, values = (torch.cat(side) for side in zip(*self._pending, strict=True))
        k = self.values.shape[1]
        changed = rows.bincount(minlength=len(self.values)).nonzero().squeeze(1)
        # Positions in `changed`, so that rows without pending values are not read.
        positions = torch.arange(len(changed), device=rows.device).repeat_interleave(k)
        positions = torch.cat([positions, torch.searchsorted(changed, rows)])
        values = torch.cat([self.values[changed].flatten(), values])
        indices = torch.cat([self.indices[changed].flatten(), indices])
        order = values.argsort()
        order = order[positions[order].argsort(stable=True)]
        counts = positions.bincount()
        selected = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k, device=order.device)]
        self.values[changed], self.indices[changed] = values[selected], indices[selected]
        self._pending = []


def _group_columns(groups: Tensor) -> Tensor:
    """Return the columns of each group, in a new last dimension."""
    return groups[..., None] * _GROUP_SIZE + torch.arange(_GROUP_SIZE, device=groups.device)
