"""Exact search among rows that are read once, block by block, and need not be kept in memory."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlmetric.neighbors._euclidean_search import euclidean_search
from mlmetric.neighbors._exact_distances import SquaredDistances, smallest_k
from mlmetric.neighbors._lower_bounds import LowerBounds, Normalization, matmul_keeps_float32
from mlmetric.neighbors._row_matrix import DenseRows, even_slices

# A block of refs and a part of the queries, and their product, fit the cache of a processor core.
_BLOCK_ROWS, _MAX_PRODUCT = 2048, 2**20
_BLOCK_ROWS_OF_DEVICE, _MAX_PRODUCT_OF_DEVICE = 2**15, 2**25
# Values of these binary exponents have squares, in float64, that neither overflow nor underflow.
_MAX_EXPONENT = 100


class Nearest(NamedTuple):
    """The nearest of the refs so far; the tensors are never changed in place."""

    num_refs: int
    """Number of refs so far."""

    largest: float
    """Largest absolute value of the queries and the refs so far, which decides how values are scaled."""

    squares: Tensor
    """Squared distances of the scaled values, in ascending order, float64 `(Q, min(k, num_refs))`."""

    indices: Tensor
    """Indices of the refs, int64, of the same shape; at equal distances in ascending order."""

    def rescaled(self, largest: float) -> Nearest:
        """Return the same rows, scaled for a new value of `largest` that is at least the present one."""
        change = _scale_exponent(largest) - _scale_exponent(self.largest)
        factor = 2.0 ** max(change, -1000)
        squares = self.squares * factor * factor if change else self.squares
        return self._replace(largest=largest, squares=squares)

    def merged(self, other: Nearest, k: int) -> Nearest:
        """Return the k nearest of both; the refs of `other` follow those of this one."""
        largest = max(self.largest, other.largest)
        first, second = self.rescaled(largest), other.rescaled(largest)
        num_refs = first.num_refs + second.num_refs
        squares = torch.cat([first.squares, second.squares.to(first.squares.device)], dim=1)
        indices = torch.cat([first.indices, second.indices.to(first.indices.device) + first.num_refs], dim=1)
        return Nearest(num_refs, largest, *smallest_k(squares, indices, min(k, num_refs)))


class _Prepared(NamedTuple):
    """The queries, prepared for products with blocks of refs."""

    queries: DenseRows
    bounds: LowerBounds
    block: Any
    exponent: int
    """Binary exponent of the largest absolute value."""


class StreamedSearch:
    """The k nearest refs of each query by Euclidean distance; each ref is read once.

    The result equals the result of `kneighbors` on all refs, whatever the blocks are: distances are computed from
    float64 differences, and ties go to the lowest index. Lower bounds in float32 show which refs may be nearer than the
    k-th nearest so far. Where there are many of them, as at the start or if the rows become nearer and nearer, the
    block is searched for its own k nearest refs.

    Args:
        queries: float64 `(Q, D)`, finite.
        k: Number of neighbours, at least 1; it may exceed the number of refs.
    """

    def __init__(self, queries: Tensor, k: int) -> None:
        self._queries, self.k = queries, k
        is_cpu = queries.device.type == "cpu"
        self.block_rows = max(k, _BLOCK_ROWS) if is_cpu else max(k, _BLOCK_ROWS_OF_DEVICE)
        self.block_rows = min(self.block_rows, 2**17)
        self._max_product = _MAX_PRODUCT if is_cpu else _MAX_PRODUCT_OF_DEVICE
        self._centre: Tensor | None = None
        self._prepared: _Prepared | None = None
        largest = float(queries.abs().max()) if queries.numel() else 0.0
        empty = queries.new_empty(len(queries), 0)
        self.restore(Nearest(0, largest, empty, empty.long()))

    def __getstate__(self) -> dict[str, Any]:
        self.nearest()
        return self.__dict__ | {"_prepared": None}  # which can be computed again

    def nearest(self) -> Nearest:
        """Return the nearest refs so far."""
        if self._num_pending:
            self._merge_pending()
        return self._nearest

    def restore(self, nearest: Nearest) -> None:
        """Continue from an earlier state."""
        self._nearest = nearest
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_pending = 0
        self._thresholds: Tensor | None = None

    @property
    def num_results(self) -> int:
        """Number of pairs of a query and one of its nearest refs."""
        return self._nearest.squares.numel()

    @property
    def num_refs(self) -> int:
        """Number of refs so far."""
        return self._nearest.num_refs

    def add(self, refs: Tensor, largest: float) -> Tensor:
        """Search the next refs.

        Args:
            refs: float32 or float64 `(R, D)`, finite, on the device of the queries.
            largest: Largest absolute value of `refs`.

        Returns:
            Ascending row numbers in `refs`, int64: those that are among the k nearest of a query, and a few others.
        """
        if not len(self._queries):
            num_refs = self.num_refs + len(refs)
            empty = self._queries.new_empty(0, min(self.k, num_refs))
            self._nearest = Nearest(num_refs, largest, empty, empty.long())
        if not len(self._queries) or not len(refs):
            return torch.empty(0, dtype=torch.int64, device=self._queries.device)
        prepared = self._prepare(refs, largest)
        found = []
        for part in even_slices(len(refs), self.block_rows):
            block = refs[part]
            if scale_exponent := _scale_exponent(self._nearest.largest):
                block = _times_power_of_two(block.double(), scale_exponent)
            found.append(self._add_block(prepared, _dense_rows(block)) + part.start)
        return torch.cat(found)

    def _prepare(self, refs: Tensor, largest: float) -> _Prepared:
        """Prepare the queries for values up to `largest`, again if its exponent differs from the previous one."""
        largest = max(self._nearest.largest, largest)
        exponent = math.frexp(largest)[1]
        if self._prepared is not None and exponent == self._prepared.exponent:
            self._nearest = self._nearest._replace(largest=largest)
            return self._prepared
        self.restore(self.nearest().rescaled(largest))
        scale_exponent = _scale_exponent(largest)
        queries = _dense_rows(_times_power_of_two(self._queries, scale_exponent))
        if self._centre is None:
            # Any centre gives lower bounds, and the mean gives the tightest. The mean of the first rows is used,
            # because each row is read only once.
            self._centre = _dense_rows(refs[: self.block_rows]).centre()
        # Rounded to float32, so that subtracting it from float32 and from float64 means the same.
        centre = _times_power_of_two(self._centre, scale_exponent).float().double()
        deviation_exponent = exponent + 1 + scale_exponent
        scale = 1.0 if abs(deviation_exponent) <= 30 else 2.0**-deviation_exponent
        dtype = torch.float32 if matmul_keeps_float32(refs.device) else torch.float64
        bounds = LowerBounds(queries, queries, Normalization(centre, scale, 1.0), dtype)
        rows = torch.arange(len(self._queries), device=refs.device)
        self._prepared = _Prepared(queries, bounds, bounds.prepare_queries(rows), exponent)
        return self._prepared

    def _add_block(self, prepared: _Prepared, refs: DenseRows) -> Tensor:
        first = self.num_refs
        exact = SquaredDistances(prepared.queries, refs, 1.0)
        pairs = self._find_pairs(prepared, refs) if self._nearest.squares.shape[1] == self.k else None
        if pairs is not None:
            rows, columns = pairs
            squares = exact.of_pairs(rows, columns)
            is_nearer = squares < self._nearest.squares[rows, -1]
            rows, columns, squares = rows[is_nearer], columns[is_nearer], squares[is_nearer]
            if len(rows):
                self._pending.append((rows, columns + first, squares))
                self._num_pending += len(rows)
            self._nearest = self._nearest._replace(num_refs=first + refs.shape[0])
            if self._num_pending > max(self.num_results // 4, 2**10):
                self.nearest()
            new: Tensor = torch.unique(columns)
            return new
        k = min(self.k, refs.shape[0])
        _, columns = euclidean_search(prepared.queries, refs, k, exclude_self=False, block_size=_BLOCK_ROWS)
        squares = exact.of_candidates(torch.arange(len(columns), device=columns.device), columns)
        block = Nearest(refs.shape[0], self._nearest.largest, squares, columns)
        self.restore(self.nearest().merged(block, self.k))
        new = torch.unique(self._nearest.indices[self._nearest.indices >= first])
        return new - first

    def _find_pairs(self, prepared: _Prepared, refs: DenseRows) -> tuple[Tensor, Tensor] | None:
        """Find the pairs of a query and a ref that may be nearer than the k-th nearest so far; None if many."""
        queries, bounds = prepared.block, prepared.bounds
        bounds.refs = refs
        thresholds = self._find_thresholds(bounds)
        block = bounds.prepare_refs(torch.arange(refs.shape[0], device=refs.device))
        # A distance from differences takes about as long as the bounds of a hundred pairs.
        max_pairs = len(queries) * (refs.shape[0] // 32 + min(2 * self.k, refs.shape[0] // 4))
        found = []
        for part in even_slices(len(queries), self._max_product // refs.shape[0]):
            lower = bounds.between(queries[part], block)
            # The minimum of each query first: it is the fastest pass over the product, and few queries have a pair.
            rows = (lower.amin(dim=1) < thresholds[part]).nonzero().squeeze(1)
            if not len(rows):
                continue
            positions, columns = (lower[rows] < thresholds[part][rows, None]).nonzero(as_tuple=True)
            max_pairs -= len(positions)
            if max_pairs < 0:
                return None
            found.append((rows[positions] + part.start, columns))
        if not found:
            return (torch.empty(0, dtype=torch.int64, device=refs.device),) * 2
        rows, columns = (torch.cat(side) for side in zip(*found, strict=True))
        return rows, columns

    def _find_thresholds(self, bounds: LowerBounds) -> Tensor:
        """Return the bounds below which a ref may be nearer: `(Q,)`, in the dtype of the bounds, rounded upwards."""
        if self._thresholds is None:
            squares = self._nearest.squares[:, -1]
            exact = squares / bounds.to_squared_distances
            rounded = exact.to(bounds.dtype)
            higher = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
            # At distance 0 no later row is nearer.
            self._thresholds = torch.where(rounded.double() < exact, higher, rounded).masked_fill(
                squares == 0, -torch.inf
            )
        return self._thresholds

    def _merge_pending(self) -> None:
        rows, indices, squares = (torch.cat(side) for side in zip(*self._pending, strict=True))
        old = self._nearest
        changed, positions = torch.unique(rows, return_inverse=True)
        # Refs at the same distance are in order of index: first the earlier ones, and each block adds higher indices.
        own = torch.arange(len(changed), device=rows.device).repeat_interleave(self.k)
        positions = torch.cat([own, positions])
        squares = torch.cat([old.squares[changed].flatten(), squares])
        indices = torch.cat([old.indices[changed].flatten(), indices])
        order = squares.argsort(stable=True)
        order = order[positions[order].argsort(stable=True)]
        counts = positions.bincount()
        selected = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(self.k, device=order.device)]
        self.restore(
            old._replace(
                squares=old.squares.index_copy(0, changed, squares[selected]),
                indices=old.indices.index_copy(0, changed, indices[selected]),
            )
        )


def _dense_rows(values: Tensor) -> DenseRows:
    # An array, which is centred without a temporary copy.
    return DenseRows(values.numpy() if values.device.type == "cpu" else values)


def _scale_exponent(largest: float) -> int:
    """Return the exponent of the power of two by which values up to `largest` are scaled."""
    exponent = math.frexp(largest)[1]
    return 0 if abs(exponent) <= _MAX_EXPONENT else -exponent


def _times_power_of_two(values: Tensor, exponent: int) -> Tensor:
    if not exponent:
        return values
    # In two steps, because 2**exponent overflows for the smallest numbers.
    return values * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2)
