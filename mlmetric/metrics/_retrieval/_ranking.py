"""Rankings of a database for each query: by embeddings, by distances, or by given indices."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.neighbors import kneighbors

Array = npt.NDArray[Any]
OrderCorrection = Callable[[int, Array, Array], None]
"""Function of the index of a row, its values and their order, which corrects the order in place."""
MAX_SEARCH_K = 100
"""Up to this k, a nearest-neighbour search finds the first k rows; above it, all distances are sorted."""
MIN_SIZE_FOR_THREADS = 2**16
"""Matrices with fewer entries are sorted by one thread, because starting threads takes longer."""


class Ranking(Protocol):
    """Ranking of the database for each query.

    Rows at the same distance are ranked by index. If the queries are the database, each query is excluded from its own
    ranking.
    """

    max_k: int
    """Number of rows in the ranking of a query."""

    def top(self, queries: slice, k: int) -> Tensor:
        """Return the indices of the first `k` rows for `queries`: int64 `(B, k)`, padded with -1."""


class EmbeddingRanking:
    """Ranking by Euclidean distance, computed from float64 differences.

    For a small k the rows come from `kneighbors`. Otherwise all squared distances are computed by one matrix product,
    and those that its rounding errors may have put in the wrong order are computed again from differences.

    Args:
        queries: float64, shape `(N, D)`.
        refs: float64, shape `(M, D)`, or None if the queries are the database.
    """

    def __init__(self, queries: Tensor, refs: Tensor | None) -> None:
        self._exclude_self = refs is None
        self.max_k = max(0, len(queries) - 1 if refs is None else len(refs))
        # Scaling by a power of two rounds nothing and keeps the squares of all finite values finite.
        scaled = _scale_to_unit_range([queries] if refs is None else [queries, refs])
        self._queries, self._refs = scaled[0], scaled[-1]
        self._neighbors: Tensor | None = None
        self._centred: tuple[Tensor, ...] | None = None

    def top(self, queries: slice, k: int) -> Tensor:
        if not k:
            return torch.empty(len(self._queries[queries]), 0, dtype=torch.int64, device=self._queries.device)
        if k <= MAX_SEARCH_K:
            return self._nearest(k)[queries]
        return self._sort_all(queries)[:, :k]

    def _nearest(self, k: int) -> Tensor:
        if self._neighbors is None or self._neighbors.shape[1] != k:
            if self._exclude_self:
                self._neighbors = kneighbors(self._queries, k)[1]
            else:
                self._neighbors = kneighbors(self._refs, k, queries=self._queries)[1]
        return self._neighbors

    def _sort_all(self, queries: slice) -> Tensor:
        rows = self._queries[queries]
        if rows.device.type != "cpu":
            distances = torch.cdist(rows, self._refs, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            if self._centred is None:
                self._centred = self._centre()
            centred, norms, centred_refs, ref_norms = self._centred
            norms = norms[queries]
            distances = torch.addmm(ref_norms.square(), centred[queries], centred_refs.T, alpha=-2)
            distances.add_(norms.square()[:, None])
        if self._exclude_self:
            distances[:, queries].fill_diagonal_(torch.nan)  # NaN is sorted last
        if rows.device.type != "cpu":
            return stable_argsort(distances)
        return stable_argsort(distances, NearTieSorter(rows, norms, self._refs, ref_norms).sort)

    def _centre(self) -> tuple[Tensor, ...]:
        """Subtract a central row, for more exact products: rows and norms of the queries and of the database."""
        centre = self._refs[(self._refs - self._refs.mean(dim=0)).abs().amax(dim=1).argmin()]
        centred, centred_refs = self._queries - centre, self._refs - centre
        return centred, centred.norm(dim=1), centred_refs, centred_refs.norm(dim=1)


class NearTieSorter:
    """Sorter of squared distances that are closer to each other than the rounding errors of a matrix product.

    Args:
        rows: Queries, float64, shape `(B, D)`.
        norms: Norms of the centred queries, shape `(B,)`.
        refs: Database, float64, shape `(M, D)`.
        ref_norms: Norms of the centred database, shape `(M,)`.
    """

    def __init__(self, rows: Tensor, norms: Tensor, refs: Tensor, ref_norms: Tensor) -> None:
        self._rows, self._refs = rows.numpy(), refs.numpy()
        self._norms, self._ref_norms = norms.numpy(), ref_norms.numpy()
        # The product and both squared norms are sums of D terms each; doubled, because the bound is of first order.
        self._rounding = 2 * (2 * rows.shape[1] + 8) * 2.0**-53
        self._max_norm = float(ref_norms.max())

    def sort(self, row: int, distances: Array, order: Array) -> None:
        """Sort near ties of a query by distances computed from differences, then by index, in place."""
        ordered = distances.take(order)
        if np.isnan(ordered[-1]):  # the query itself
            ordered, order = ordered[:-1], order[:-1]
        if not (np.diff(ordered) <= 2 * self._rounding * (self._norms[row] + self._max_norm) ** 2).any():
            return
        errors = self._rounding * (self._norms[row] + self._ref_norms.take(order)) ** 2
        # Between two groups of near ties, all rows of the first are nearer than all rows of the second.
        highest = np.maximum.accumulate(ordered + errors)[:-1]
        lowest = np.minimum.accumulate((ordered - errors)[::-1])[::-1][1:]
        near = highest >= lowest
        if not near.any():
            return
        is_tied = np.zeros(len(order), dtype=np.bool_)
        is_tied[1:] = near
        is_tied[:-1] |= near
        groups = np.concatenate(([0], np.cumsum(~near)))[is_tied]
        members = order[is_tied]
        exact = np.concatenate(
            [
                ((self._refs[part] - self._rows[row]) ** 2).sum(axis=1)
                for part in np.array_split(members, 1 + members.size * self._refs.shape[1] // 2**18)
            ]
        )
        order[is_tied] = members[np.lexsort((members, exact, groups))]


class DistanceRanking:
    """Ranking by a matrix of distances.

    Args:
        distances: float32 or float64, shape `(N, M)`.
        exclude_self: Whether the queries are the database.
    """

    def __init__(self, distances: Tensor, *, exclude_self: bool) -> None:
        self._distances = distances
        self._exclude_self = exclude_self
        self.max_k = distances.shape[1] - exclude_self

    def top(self, queries: slice, k: int) -> Tensor:
        distances = self._distances[queries]
        if self._exclude_self:
            distances = distances.clone()
            distances[:, queries].fill_diagonal_(torch.nan)  # NaN is sorted last
        return stable_argsort(distances)[:, :k]


class IndexRanking:
    """Ranking by indices of rows that were retrieved elsewhere.

    Args:
        indices: int64, shape `(N, K)`, in order of distance, padded with -1.
        exclude_self: Whether the queries are the database.
    """

    def __init__(self, indices: Tensor, *, exclude_self: bool) -> None:
        # If a query retrieved itself, one index fewer remains; the last index of every other query is dropped.
        is_self = indices == torch.arange(len(indices), device=indices.device)[:, None]
        if exclude_self and bool(is_self.any()):
            indices = indices.gather(1, is_self.int().sort(dim=1, stable=True).indices[:, :-1])
        self._indices = indices
        self.max_k = indices.shape[1]

    def top(self, queries: slice, k: int) -> Tensor:
        return self._indices[queries, :k]


def stable_argsort(values: Tensor, correct_order: OrderCorrection | None = None) -> Tensor:
    """Return the indices that sort each row in ascending order, with ties in order of index: int64 `(B, M)`.

    Args:
        values: Shape `(B, M)`, float32 or float64; NaN is sorted last.
        correct_order: Correction applied to the order of each row, on the CPU only.
    """
    if values.device.type != "cpu":
        return values.sort(dim=1, stable=True).indices
    rows = values.numpy()
    orders = np.empty(rows.shape, dtype=np.int64)

    def sort(part: Array) -> None:
        for row in part:
            orders[row] = _radix_argsort(_to_digits(rows[row]))
            if correct_order is not None:
                correct_order(row, rows[row], orders[row])

    indices = np.arange(len(rows))
    if rows.size < MIN_SIZE_FOR_THREADS:
        sort(indices)
    else:
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sort, np.array_split(indices, threads)))
    return torch.from_numpy(orders)


def _radix_argsort(digits: list[Array]) -> Array:
    """Sort by digits of 16 bits, the least significant first; numpy sorts each digit in linear time."""
    order: Array = np.argsort(digits[0], kind="stable")
    for digit in digits[1:]:
        order = order.take(np.argsort(digit.take(order), kind="stable"))
    return order


def _to_digits(row: Array) -> list[Array]:
    signed: type[np.signedinteger[Any]] = np.int32 if row.dtype == np.float32 else np.int64
    bits = 8 * row.dtype.itemsize
    # Among negative numbers, the larger bit pattern is the lower number. Adding 0 turns -0.0 into 0.0.
    keys = (row + row.dtype.type(0)).view(signed)
    keys = np.where(keys < 0, ~keys, keys ^ np.iinfo(signed).min).view(f"u{bits // 8}")
    return [(keys >> keys.dtype.type(shift)).astype(np.uint16) for shift in range(0, bits, 16)]


def _scale_to_unit_range(matrices: list[Tensor]) -> list[Tensor]:
    """Scale matrices by one power of two so that no absolute value exceeds 1."""
    largest = max(float(matrix.abs().max()) if matrix.numel() else 0.0 for matrix in matrices)
    if not largest:
        return matrices
    exponent = -math.frexp(largest)[1]
    # In two steps, because 2**exponent overflows for the smallest numbers.
    return [matrix * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2) for matrix in matrices]
