"""In which order queries retrieve a database."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mlmetric.metrics._retrieval._orders import Array, stable_order
from mlmetric.neighbors import kneighbors

FEW = 100
"""Up to so many rows the nearest ones are searched for; beyond, all are put in order."""


class Ranker(Protocol):
    """Rows at the same distance come in the order of their indices; within a database a query leaves out itself."""

    depth: int
    """How many rows a query retrieves at most."""

    def order(self, queries: slice, depth: int) -> Tensor:
        """Return what `queries` retrieve first: int64 `(B, depth)`, -1 at the end of a row where no more was found."""


class EmbeddingRanker:
    """By Euclidean distance, as sums of squared differences in float64 tell it.

    The first few are found by `kneighbors`. Where all are put in order, squared distances come from one product, and
    those that its rounding may have put in the wrong order are computed anew from differences.
    """

    def __init__(self, queries: Tensor, refs: Tensor | None) -> None:
        self._within = refs is None
        self.depth = max(0, len(queries) - 1 if refs is None else len(refs))
        sides = [queries] if refs is None else [queries, refs]
        # By a power of two, which rounds nothing: squares of any finite rows are then numbers.
        sides = _scale(sides)
        self._queries, self._refs = sides[0], sides[-1]
        self._found: Tensor | None = None
        self._moved: tuple[Tensor, ...] | None = None

    def order(self, queries: slice, depth: int) -> Tensor:
        if not depth:
            return torch.empty(len(self._queries[queries]), 0, dtype=torch.int64, device=self._queries.device)
        if depth <= FEW:
            return self._nearest(depth)[queries]
        return self._whole(queries)[:, :depth]

    def _nearest(self, depth: int) -> Tensor:
        if self._found is None or self._found.shape[1] != depth:
            if self._within:
                self._found = kneighbors(self._queries, depth)[1]
            else:
                self._found = kneighbors(self._refs, depth, queries=self._queries)[1]
        return self._found

    def _whole(self, queries: slice) -> Tensor:
        rows = self._queries[queries]
        if rows.device.type != "cpu":
            distances = torch.cdist(rows, self._refs, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            if self._moved is None:
                self._moved = self._move()
            moved, lengths, moved_refs, ref_lengths = self._moved
            lengths = lengths[queries]
            distances = torch.addmm(ref_lengths.square(), moved[queries], moved_refs.T, alpha=-2)
            distances.add_(lengths.square()[:, None])
        if self._within:
            distances[:, queries].fill_diagonal_(torch.nan)  # which comes last
        if rows.device.type != "cpu":
            return stable_order(distances)
        return stable_order(distances, RoundingRepair(rows, lengths, self._refs, ref_lengths).repair)

    def _move(self) -> tuple[Tensor, ...]:
        """Move rows near 0, which makes their products more exact: rows and lengths of queries and database."""
        centre = self._refs[(self._refs - self._refs.mean(dim=0)).abs().amax(dim=1).argmin()]
        moved, moved_refs = self._queries - centre, self._refs - centre
        return moved, moved.norm(dim=1), moved_refs, moved_refs.norm(dim=1)


class RoundingRepair:
    """Squared distances that came from a product, and the order that they really have."""

    def __init__(self, rows: Tensor, lengths: Tensor, refs: Tensor, ref_lengths: Tensor) -> None:
        self._rows, self._refs = rows.numpy(), refs.numpy()
        self._lengths, self._ref_lengths = lengths.numpy(), ref_lengths.numpy()
        # Of the product and both squared lengths, each a sum of D terms; doubled, for the bound is of first order.
        self._rounding = 2 * (2 * rows.shape[1] + 8) * 2.0**-53
        self._longest = float(ref_lengths.max())

    def repair(self, row: int, distances: Array, order: Array) -> None:
        """Order the rows that are as near as makes no difference to a product by differences, then by index."""
        ordered = distances.take(order)
        if np.isnan(ordered[-1]):  # the query itself
            ordered, order = ordered[:-1], order[:-1]
        if not (np.diff(ordered) <= 2 * self._rounding * (self._lengths[row] + self._longest) ** 2).any():
            return
        errors = self._rounding * (self._lengths[row] + self._ref_lengths.take(order)) ** 2
        # Between two runs, all of the one are nearer than all of the other, whatever the rounding.
        highest = np.maximum.accumulate(ordered + errors)[:-1]
        lowest = np.minimum.accumulate((ordered - errors)[::-1])[::-1][1:]
        near = highest >= lowest
        if not near.any():
            return
        doubtful = np.zeros(len(order), dtype=np.bool_)
        doubtful[1:] = near
        doubtful[:-1] |= near
        runs = np.concatenate(([0], np.cumsum(~near)))[doubtful]
        members = order[doubtful]
        exact = np.concatenate(
            [
                ((self._refs[part] - self._rows[row]) ** 2).sum(axis=1)
                for part in np.array_split(members, 1 + members.size * self._refs.shape[1] // 2**18)
            ]
        )
        order[doubtful] = members[np.lexsort((members, exact, runs))]


def _scale(sides: list[Tensor]) -> list[Tensor]:
    reach = max(float(side.abs().max()) if side.numel() else 0.0 for side in sides)
    if not reach:
        return sides
    exponent = -math.frexp(reach)[1]
    # In two steps, for 2^-exponent of the smallest numbers is none itself.
    return [side * 2.0 ** (exponent // 2) * 2.0 ** (exponent - exponent // 2) for side in sides]


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
    """By what was retrieved, int64 `(N, K)`, each row in order, -1 at its end where no more was found."""

    def __init__(self, retrieved: Tensor, *, within: bool) -> None:
        # A query that retrieved itself has one row less; the last ones of the others are left out then.
        own = retrieved == torch.arange(len(retrieved), device=retrieved.device)[:, None]
        if within and bool(own.any()):
            retrieved = retrieved.gather(1, own.int().sort(dim=1, stable=True).indices[:, :-1])
        self._retrieved = retrieved
        self.depth = retrieved.shape[1]

    def order(self, queries: slice, depth: int) -> Tensor:
        return self._retrieved[queries, :depth]
