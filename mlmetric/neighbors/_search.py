"""The search by Euclidean distance: likely neighbours, their exact distances, and what is left open done again."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mlmetric.neighbors._bounds import Bounds, Frame, products_keep_float32
from mlmetric.neighbors._copies import first_copies
from mlmetric.neighbors._exact import Squares, smallest
from mlmetric.neighbors._rows import DenseRows, Rows
from mlmetric.neighbors._scan import Candidates, pairs_within, scan

_SPARE_CANDIDATES = 4
_SPARE_IN_TREE = 1
_SAMPLE_SIZE = 64
# A tree is the faster one up to so many columns, and up to a few more where the rows are many.
_TREE_WIDTH, _TREE_WIDTH_OF_MANY, _MANY_ROWS = 7, 10, 20_000


def search(queries: Rows, refs: Rows, k: int, *, within: bool, block: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest refs of each query, exactly; ties go to the lowest number.

    Likely neighbours are found fast: by a tree for a few columns, else by lower bounds in float32, unless these decide
    little of a sample. Their distances are computed exactly. A query is done where the last of its k is nearer than
    anything else can be; the others are searched for again by bounds in float64, and where these cannot decide either,
    which is where distances are equal, everything within rounding of the last of the k is compared.

    Args:
        queries: Rows to find neighbours for.
        refs: Rows to search among.
        k: How many, at most those that a query can have.
        within: Whether queries and refs are the same rows, and none is its own neighbour.
        block: How many rows are compared with as many at once.

    Returns:
        Distances, float64, and numbers of refs, int64, both of shape `(Q, k)`, nearest first.
    """
    frame = Frame.of(queries, refs)
    exact = Squares(queries, refs, frame.unit)
    squares = torch.empty(queries.shape[0], k, dtype=torch.float64, device=refs.device)
    numbers = torch.empty(queries.shape[0], k, dtype=torch.int64, device=refs.device)

    def settle(rows: Tensor, candidates: Candidates) -> Tensor:
        """Write down the nearest candidates, and return the rows that may have nearer ones."""
        found, found_numbers = smallest(exact.of_candidates(rows, candidates.numbers), candidates.numbers, k)
        squares[rows], numbers[rows] = found, found_numbers
        return rows[found[:, -1] >= candidates.outside]

    rows = torch.arange(queries.shape[0], device=refs.device)
    ref_numbers = torch.arange(refs.shape[0], device=refs.device)
    num_candidates = min(k + _SPARE_CANDIDATES, refs.shape[0] - within)
    if isinstance(refs, DenseRows) and refs.device.type == "cpu" and _suits_a_tree(*refs.shape):
        rows = settle(rows, _tree(queries, refs, frame.unit, min(k + _SPARE_IN_TREE, num_candidates), within=within))
    elif isinstance(refs, DenseRows) and products_keep_float32(refs.device):
        bounds = Bounds(queries, refs, frame, torch.float32)

        def by_float32(some: Tensor) -> Tensor:
            return settle(some, scan(bounds, some, ref_numbers, num_candidates, within=within, block=block))

        # Where it decides few of a sample, as in tight clusters that lie far apart, it is not worth its time.
        sample = rows[:: max(1, len(rows) // _SAMPLE_SIZE)].contiguous()
        if len(rows) <= 16 * _SAMPLE_SIZE or 2 * len(by_float32(sample)) < len(sample):
            rows = by_float32(rows)
    if len(rows):
        ref_numbers = first_copies(refs, k + 1)
        if within and refs.shape[0] == len(ref_numbers) < 2 * len(rows):
            rows = ref_numbers  # all, each product serving two, cost less than most
        bounds = Bounds(queries, refs, frame, torch.float64)
        num_candidates = min(k + _SPARE_CANDIDATES, len(ref_numbers) - within)
        rows = settle(rows, scan(bounds, rows, ref_numbers, num_candidates, within=within, block=block))
    if len(rows):
        reach = squares[rows, -1]
        for places, near in pairs_within(bounds, rows, ref_numbers, reach, within=within, block=block):
            near_squares = exact.of_pairs(rows[places], near)
            # By place, then distance, then number: each sort keeps the order of the one before.
            order = near_squares.argsort(stable=True)
            order = order[places[order].argsort(stable=True)]
            counts = places.bincount(minlength=len(rows))
            found, starts = counts.nonzero().squeeze(1), counts.cumsum(0) - counts
            chosen = order[starts[found, None] + torch.arange(k, device=order.device)]
            squares[rows[found]], numbers[rows[found]] = near_squares[chosen], near[chosen]
    return squares.sqrt_() / frame.unit, numbers


def _suits_a_tree(num_rows: int, width: int) -> bool:
    return width <= (_TREE_WIDTH_OF_MANY if num_rows > _MANY_ROWS else _TREE_WIDTH)


def _tree(queries: Any, refs: DenseRows, unit: float, num_candidates: int, *, within: bool) -> Candidates:
    """Find candidates by scikit-learn's tree, which compares differences in float64."""
    # Threads are worth their start for many queries only.
    n_jobs = -1 if queries.shape[0] > 5000 else None
    tree = NearestNeighbors(n_neighbors=num_candidates, algorithm="kd_tree", n_jobs=n_jobs).fit(refs.matrix)
    distances, numbers = tree.kneighbors(None if within else queries.matrix)
    rounding = (4 * refs.shape[1] + 32) * torch.finfo(torch.float64).eps
    outside = (torch.from_numpy(distances[:, -1]) * unit) ** 2 * (1 - rounding)
    if num_candidates == refs.shape[0] - within:
        outside = torch.full_like(outside, torch.inf)
    return Candidates(torch.from_numpy(numbers), outside)
