"""Exact search by Euclidean distance: candidates, their exact distances, and a second search for undecided rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlmetric.neighbors._exact_distances import SquaredDistances, smallest_k
from mlmetric.neighbors._lower_bound_search import Candidates, find_candidates, find_pairs_within
from mlmetric.neighbors._lower_bounds import LowerBounds, Normalization, matmul_keeps_float32
from mlmetric.neighbors._row_matrix import DenseRows, Rows

_EXTRA_CANDIDATES = 4
_EXTRA_CANDIDATES_OF_TREE = 1
_SAMPLE_SIZE = 64
# A k-d tree is faster up to this number of columns, or up to the second number if there are many rows.
_MAX_TREE_WIDTH, _MAX_TREE_WIDTH_OF_MANY, _MANY_ROWS = 7, 10, 20_000


def euclidean_search(
    queries: Rows, refs: Rows, k: int, *, exclude_self: bool, block_size: int
) -> tuple[Tensor, Tensor]:
    """Find the k nearest refs of each query, exactly; ties go to the lowest index.

    Candidates are found by a k-d tree for few columns, otherwise by lower bounds in float32, unless these are too loose
    for half of a sample. The distances of the candidates are computed exactly. A query is finished if its k-th
    neighbour is nearer than the lower bound of all other refs. The other queries are searched for again with bounds in
    float64. If these are too loose as well, which happens for equal distances, all refs whose bound does not exceed the
    distance of the k-th neighbour are compared exactly.

    Args:
        queries: Rows to find neighbours for.
        refs: Rows to search among.
        k: Number of neighbours, at most the number of refs that a query can have.
        exclude_self: Whether queries and refs are the same rows, so that no row is its own neighbour.
        block_size: Number of rows on each side of one matrix product.

    Returns:
        Distances, float64, and indices of refs, int64, both of shape `(Q, k)`, nearest first.
    """
    normalization = Normalization.of(queries, refs)
    scale = normalization.difference_scale
    exact = SquaredDistances(queries, refs, scale)
    squares = torch.empty(queries.shape[0], k, dtype=torch.float64, device=refs.device)
    indices = torch.empty(queries.shape[0], k, dtype=torch.int64, device=refs.device)
    options: dict[str, Any] = {"exclude_self": exclude_self, "block_size": block_size}

    def store_nearest(rows: Tensor, candidates: Candidates) -> Tensor:
        """Store the nearest candidates, and return the rows that may have nearer refs."""
        nearest, nearest_indices = smallest_k(exact.of_candidates(rows, candidates.indices), candidates.indices, k)
        squares[rows], indices[rows] = nearest, nearest_indices
        return rows[nearest[:, -1] >= candidates.min_of_others]

    rows = torch.arange(queries.shape[0], device=refs.device)
    ref_indices = torch.arange(refs.shape[0], device=refs.device)
    num_candidates = min(k + _EXTRA_CANDIDATES, refs.shape[0] - exclude_self)
    if isinstance(refs, DenseRows) and refs.device.type == "cpu" and _is_tree_faster(*refs.shape):
        num_of_tree = min(k + _EXTRA_CANDIDATES_OF_TREE, num_candidates)
        rows = store_nearest(rows, _query_tree(queries, refs, scale, num_of_tree, exclude_self=exclude_self))
    elif isinstance(refs, DenseRows) and matmul_keeps_float32(refs.device):
        bounds = LowerBounds(queries, refs, normalization, torch.float32)

        def search_in_float32(some: Tensor) -> Tensor:
            return store_nearest(some, find_candidates(bounds, some, ref_indices, num_candidates, **options))

        # float32 is skipped if it is too loose for half of a sample, as for tight clusters that are far apart.
        sample = rows[:: max(1, len(rows) // _SAMPLE_SIZE)].contiguous()
        if len(rows) <= 16 * _SAMPLE_SIZE or 2 * len(search_in_float32(sample)) < len(sample):
            rows = search_in_float32(rows)
    if len(rows):
        ref_indices = limit_duplicates(refs, k + 1)
        if exclude_self and refs.shape[0] == len(ref_indices) < 2 * len(rows):
            rows = ref_indices  # the symmetric search of all rows is faster than the search of more than half of them
        bounds = LowerBounds(queries, refs, normalization, torch.float64)
        num_candidates = min(k + _EXTRA_CANDIDATES, len(ref_indices) - exclude_self)
        rows = store_nearest(rows, find_candidates(bounds, rows, ref_indices, num_candidates, **options))
    if len(rows):
        max_squares = squares[rows, -1]
        for positions, near in find_pairs_within(bounds, rows, ref_indices, max_squares, **options):
            near_squares = exact.of_pairs(rows[positions], near)
            # By position, then distance, then index: each stable sort keeps the previous order.
            order = near_squares.argsort(stable=True)
            order = order[positions[order].argsort(stable=True)]
            counts = positions.bincount(minlength=len(rows))
            searched, starts = counts.nonzero().squeeze(1), counts.cumsum(0) - counts
            selected = order[starts[searched, None] + torch.arange(k, device=order.device)]
            squares[rows[searched]], indices[rows[searched]] = near_squares[selected], near[selected]
    return squares.sqrt_() / scale, indices


def limit_duplicates(rows: Rows, max_duplicates: int) -> Tensor:
    """Return the indices of the rows that are preceded by fewer than `max_duplicates` equal rows.

    Ties go to the lowest index, so the omitted rows cannot be among the `max_duplicates - 1` nearest rows of any row.

    Args:
        rows: The rows.
        max_duplicates: Number of equal rows to keep.

    Returns:
        int64, ascending.
    """
    indices = torch.arange(rows.shape[0], device=rows.device)
    # The result does not depend on the seed: rows of equal hashes are compared.
    generator = torch.Generator("cpu").manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator, device="cpu") | 1
    hashes = rows.hashes(factors.to(rows.device))
    order = hashes.argsort(stable=True)
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = hashes[order[1:]] != hashes[order[:-1]]
    starts = is_first.nonzero().squeeze(1)[is_first.cumsum(0) - 1]
    is_dropped = indices - starts >= max_duplicates
    if not bool(is_dropped.any()):
        return indices
    has_dropped = torch.zeros_like(is_dropped)
    has_dropped[starts[is_dropped]] = True
    members = has_dropped[starts]
    if not rows.are_equal(order[members], order[starts[members]]):
        return indices  # a hash collision: all rows are kept, which only costs time
    is_kept = torch.ones_like(is_dropped)
    is_kept[order[is_dropped]] = False
    return indices[is_kept]


def _is_tree_faster(num_rows: int, width: int) -> bool:
    return width <= (_MAX_TREE_WIDTH_OF_MANY if num_rows > _MANY_ROWS else _MAX_TREE_WIDTH)


def _query_tree(queries: Any, refs: DenseRows, scale: float, num_candidates: int, *, exclude_self: bool) -> Candidates:
    """Find candidates by scikit-learn's k-d tree, which computes distances from float64 differences."""
    from sklearn.neighbors import NearestNeighbors

    n_jobs = -1 if queries.shape[0] > 5000 else None  # starting threads takes longer than few queries
    tree = NearestNeighbors(n_neighbors=num_candidates, algorithm="kd_tree", n_jobs=n_jobs).fit(refs.matrix)
    distances, indices = tree.kneighbors(None if exclude_self else queries.matrix)
    max_error = (4 * refs.shape[1] + 32) * torch.finfo(torch.float64).eps
    min_of_others = (torch.from_numpy(distances[:, -1]) * scale) ** 2 * (1 - max_error)
    if num_candidates == refs.shape[0] - exclude_self:
        min_of_others = torch.full_like(min_of_others, torch.inf)
    return Candidates(torch.from_numpy(indices), min_of_others)
