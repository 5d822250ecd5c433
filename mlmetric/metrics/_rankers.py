"""In which order queries retrieve a database."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from mlmetric.metrics._orders import KEY_BITS, stable_order
from mlmetric.neighbors import kneighbors

FEW = 100
"""Up to so many rows the nearest ones are searched for; beyond, all are put in order."""


class Ranker(Protocol):
    """Rows at the same distance come in the order of their indices; within a database a query leaves out itself."""

    depth: int
    """How many rows a query retrieves at most."""

    def order(self, queries: slice, depth: int) -> Tensor:
        """Return what `queries` retrieve first: int64 `(B, depth)`."""


class EmbeddingRanker:
    """By Euclidean distance in float64.

    The first few are found by `kneighbors`. Where all are put in order, squared distances come from one product, as
    whole numbers of 47 bits: those that differ by less than 2^-47 of the largest that the rows allow are equal. Equal
    rows are thus equally far, whatever the product made of them.
    """

    def __init__(self, queries: Tensor, refs: Tensor | None) -> None:
        self._given = (queries, refs)
        self._within = refs is None
        self._found: Tensor | None = None
        self._scaled: tuple[Tensor, ...] | None = None
        self.depth = len(queries) - 1 if refs is None else len(refs)

    def order(self, queries: slice, depth: int) -> Tensor:
        if depth <= min(FEW, self.depth):
            return self._nearest(depth)[queries]
        keys = self._keys(queries)
        if self._within:
            keys[:, queries].fill_diagonal_(2**KEY_BITS - 1)
        return stable_order(keys)[:, :depth]

    def _nearest(self, depth: int) -> Tensor:
        if self._found is None or self._found.shape[1] != depth:
            rows, refs = self._given
            self._found = (kneighbors(rows, depth) if refs is None else kneighbors(refs, depth, queries=rows))[1]
        return self._found

    def _keys(self, queries: slice) -> Tensor:
        if self._scaled is None:
            self._scaled = _scale(*self._given)
        rows, squares, refs, ref_squares = self._scaled
        keys = torch.addmm(ref_squares, rows[queries], refs.T, alpha=-2)
        return keys.add_(squares[queries, None]).round_().clamp_(min=0).long()


def _scale(queries: Tensor, refs: Tensor | None) -> tuple[Tensor, ...]:
    """Move and scale rows so that squared distances lie below 2^47: queries and database, squared lengths of each."""
    database = queries if refs is None else refs
    if not len(database):
        database = queries.new_zeros(1, queries.shape[1])
    # Moved by a row of the data and scaled by powers of two, numbers on a grid stay on it.
    mean = database.mean(dim=0)
    centre = database[(database - mean).abs().amax(dim=1).argmin()]
    moved, moved_refs = queries - centre, database - centre
    reach = max(float(rows.abs().max()) if rows.numel() else 0.0 for rows in (moved, moved_refs))
    if reach > 0:
        factor = 2.0 ** -math.floor(math.log2(reach))
        moved, moved_refs = moved * factor, moved_refs * factor
        longest = sum(float(rows.norm(dim=1).max()) if len(rows) else 0.0 for rows in (moved, moved_refs))
        factor = 2.0 ** math.floor((KEY_BITS - 1) / 2 - math.log2(longest))
        moved, moved_refs = moved * factor, moved_refs * factor
    return moved, moved.square().sum(dim=1), moved_refs, moved_refs.square().sum(dim=1)


class DistanceRanker:
    """By a matrix of distances, float32 or float64 `(N, M)`, exactly."""

    def __init__(self, distances: Tensor, *, within: bool) -> None:
        self._distances = distances
        self._within = within
        self.depth = distances.shape[1] - within

    def order(self, queries: slice, depth: int) -> Tensor:
        distances = self._distances[queries]
        if self._within:
            distances = distances.clone()
            distances[:, queries].fill_diagonal_(torch.nan)  # which comes last
        return stable_order(distances)[:, :depth]


class IndexRanker:
    """By what was retrieved, int64 `(N, K)`, each row in order."""

    def __init__(self, retrieved: Tensor, *, within: bool) -> None:
        own = retrieved == torch.arange(len(retrieved), device=retrieved.device)[:, None]
        if within and bool(own.any()):
            retrieved = retrieved.gather(1, own.int().sort(dim=1, stable=True).indices[:, :-1])
        self._retrieved = retrieved
        self.depth = retrieved.shape[1]

    def order(self, queries: slice, depth: int) -> Tensor:
        return self._retrieved[queries, :depth]
