"""What queries retrieve from a database, and how it is graded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlmetric.labels import check_labels
from mlmetric.metrics._checks import TensorLike, check_choice, count_true, to_tensor
from mlmetric.metrics._retrieval._rankers import DistanceRanker, EmbeddingRanker, IndexRanker, Ranker
from mlmetric.similarity import SimilarityFunction, reaches

Metric = Literal["euclidean", "cosine", "precomputed", "retrieved"]
CHUNK = 2**21
"""How many pairs of a query and a row are looked at together: at 8 bytes each, 16 MB a matrix."""


class Found:
    """What some queries retrieved.

    Attributes:
        order: The rows in the order in which they are retrieved, int64 `(B, K)`; -1 at the end for no more found.
        grades: The grade of each row for each query, float64 `(B, M)`; -inf for the query itself.
        relevant: bool `(B, M)`; False for the query itself.
        num_relevant: How many rows are relevant, float64 `(B,)`.
        num_labels: How many labels each row carries, float64 `(M,)`.
        mean_labels: How many the rows that a query can retrieve carry on average, float64 `(B,)`.
    """

    def __init__(
        self, order: Tensor, grades: Tensor, relevant: Tensor, num_labels: Tensor, mean_labels: Tensor
    ) -> None:
        self.order = order
        self.is_padded = bool((order[:, -1:] < 0).any())
        self.grades = grades
        self.relevant = relevant
        self.num_relevant = count_true(relevant, dim=1).double()
        self.num_labels = num_labels
        self.mean_labels = mean_labels

    def graded(self, k: int) -> Tensor:
        """Return the grades of the first k, float64 `(B, k)`; 0 where nothing was found."""
        return self._of_first(k, self.grades, 0.0)

    def is_hit(self, k: int) -> Tensor:
        """Return which of the first k are relevant, bool `(B, k)`; False where nothing was found."""
        return self._of_first(k, self.relevant, False)

    def carried(self, k: int) -> Tensor:
        """Return how many labels the first k carry on average, float64 `(B,)`; NaN where nothing was found."""
        return self._of_first(k, self.num_labels.expand(len(self.order), -1), torch.nan).nanmean(dim=1)

    def _of_first(self, k: int, values: Tensor, missing: float) -> Tensor:
        order = self.order[:, :k]
        if not self.is_padded:
            return values.gather(1, order)
        return values.gather(1, order.clamp(min=0)).masked_fill(order < 0, missing)

    @cached_property
    def hits(self) -> Hits:
        """The relevant rows that were retrieved, query by query in order."""
        retrieved = self.is_hit(self.order.shape[1])
        places = _nonzero(retrieved)
        rows = places // max(1, retrieved.shape[1])
        counts = count_true(retrieved, dim=1)
        before = counts.cumsum(0) - counts
        numbers = torch.arange(1, len(places) + 1, device=places.device) - before[rows]
        ranks = places - rows * retrieved.shape[1] + 1
        return Hits(rows, ranks.double(), numbers.double(), counts)


class Hits(NamedTuple):
    """Relevant rows that were retrieved, `(P,)` each: by which query, at which rank and as which hit, from 1.

    `counts`: how many each query retrieved, int64 `(B,)`.
    """

    rows: Tensor
    ranks: Tensor
    numbers: Tensor
    counts: Tensor

    def total(self, values: Tensor) -> Tensor:
        """Add up `values` `(P,)` query by query: float64 `(B,)`."""
        sums: Tensor = torch.segment_reduce(values.double(), "sum", lengths=self.counts)
        return sums


Score = Callable[[Found], Tensor]
"""Scores queries: float64 `(B,)`, NaN where undefined."""


class Search(NamedTuple):
    """Queries, a database, and the order in which they retrieve it."""

    query_labels: Tensor
    ref_labels: Tensor
    ranker: Ranker
    within: bool
    """Whether the queries are the database, so that each is to leave out itself."""

    @classmethod
    def check(
        cls,
        queries: TensorLike,
        query_labels: TensorLike,
        ref_embeddings: TensorLike | None,
        ref_labels: TensorLike | None,
        metric: Metric,
    ) -> Search:
        """Check what is searched."""
        check_choice(metric, "metric", Metric)
        first = _check_rows(queries, "query_embeddings")
        labels = _check_labels(query_labels, "query", first)
        embedded = metric in ("euclidean", "cosine")
        if embedded and (ref_embeddings is None) != (ref_labels is None):
            given, missing = ("labels", "embeddings") if ref_embeddings is None else ("embeddings", "labels")
            raise ValueError(
                f"`ref_embeddings` and `ref_labels` go together, got `ref_{given}` without `ref_{missing}`."
            )
        if not embedded and ref_embeddings is not None:
            raise ValueError(f'`ref_embeddings` must be None with `metric="{metric}"`: the order is already given.')
        refs = None if ref_embeddings is None else _check_rows(ref_embeddings, "ref_embeddings").to(first.device)
        other = labels if ref_labels is None else _check_labels(ref_labels, "ref", refs).to(labels.device)
        for name, ours, theirs in (("embeddings", first, refs), ("labels", labels, other)):
            if theirs is not None and ours.shape[1] != theirs.shape[1]:
                raise ValueError(
                    f"`query_{name}` and `ref_{name}` must have the same number of columns, "
                    f"got {ours.shape[1]} and {theirs.shape[1]}."
                )
        within = ref_labels is None
        if embedded:
            rows, database = (
                None if side is None else _check_embeddings(side, name, metric)
                for side, name in ((first, "query_embeddings"), (refs, "ref_embeddings"))
            )
            assert rows is not None
            return cls(labels, other, EmbeddingRanker(rows, database), within)
        if metric == "precomputed":
            distances = _check_distances(first, len(other), within=within)
            return cls(labels, other, DistanceRanker(distances, within=within), within)
        return cls(labels, other, IndexRanker(_check_indices(first, len(other)), within=within), within)

    @property
    def database(self) -> int:
        """How many rows a query can retrieve."""
        return len(self.ref_labels) - self.within

    def check_k(self, k: int | None) -> int:
        """Check how many are looked at; None is all that are retrieved."""
        if k is None:
            return self.ranker.depth
        if not self.ranker.depth:
            raise ValueError("`ref_embeddings`, or the queries without it, must hold a row to retrieve, got none.")
        if not 1 <= k <= self.ranker.depth:
            raise ValueError(f"`k` must be from 1 to {self.ranker.depth}, the rows that a query can retrieve, got {k}.")
        return k

    def judge(
        self, scores: Sequence[Score], similarity: SimilarityFunction, relevance_threshold: float | None, depth: int
    ) -> list[Tensor]:
        """Score each query by each of `scores`: float64 `(N,)` each.

        They are given the first `depth` rows retrieved.
        """
        if relevance_threshold is not None and math.isnan(relevance_threshold):
            raise ValueError(f"`relevance_threshold` must be a number or None, got {relevance_threshold}.")
        results = [self.query_labels.new_empty(len(self.query_labels), dtype=torch.float64) for _ in scores]
        num_labels = self.ref_labels.sum(dim=1, dtype=torch.float64)
        for rows in self._slices():
            found = self._find(rows, similarity, relevance_threshold, depth, num_labels)
            for result, score in zip(results, scores, strict=True):
                result[rows] = score(found)
        return results

    def _slices(self) -> Iterator[slice]:
        size = max(1, CHUNK // max(1, len(self.ref_labels)))
        for start in range(0, len(self.query_labels), size):
            yield slice(start, min(start + size, len(self.query_labels)))

    def _find(
        self,
        rows: slice,
        similarity: SimilarityFunction,
        relevance_threshold: float | None,
        depth: int,
        num_labels: Tensor,
    ) -> Found:
        with torch.no_grad():  # a similarity may be learnt
            grades = torch.as_tensor(similarity(self.query_labels[rows], self.ref_labels)).to(self.ref_labels.device)
        shape = (rows.stop - rows.start, len(self.ref_labels))
        if grades.shape != shape:
            raise ValueError(
                f"`similarity` must return shape {shape}, a grade for each pair of query and row, "
                f"got {tuple(grades.shape)}."
            )
        if bool(grades.isnan().any()):
            raise ValueError("`similarity` must return numbers, got nan.")
        relevant = grades > 0 if relevance_threshold is None else reaches(grades, relevance_threshold)
        # A copy, for the diagonal is written to and `similarity` may hold on to what it returned.
        grades = grades.to(torch.float64, copy=True)
        mean_labels = num_labels.sum().expand(shape[0])
        if self.within:
            grades[:, rows].fill_diagonal_(-torch.inf)
            relevant[:, rows].fill_diagonal_(False)
            mean_labels = mean_labels - num_labels[rows]
        return Found(self.ranker.order(rows, depth), grades, relevant, num_labels, mean_labels / self.database)


def _check_rows(values: TensorLike, name: str) -> Tensor:
    matrix = to_tensor(values, name)
    if matrix.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, D), got {tuple(matrix.shape)}.")
    return matrix


def _check_labels(labels: TensorLike, side: str, rows: Tensor | None) -> Tensor:
    matrix: Tensor = check_labels(to_tensor(labels, f"{side}_labels"), name=f"{side}_labels")
    if rows is None:
        return matrix
    if len(matrix) != len(rows):
        raise ValueError(
            f"`{side}_labels` must have one row for each of the {len(rows)} rows of `{side}_embeddings`, "
            f"got {len(matrix)}."
        )
    moved: Tensor = matrix.to(rows.device)
    return moved


def _check_embeddings(rows: Tensor, name: str, metric: Metric) -> Tensor:
    values = rows.double()
    if not bool(values.isfinite().all()):
        raise ValueError(f"`{name}` must be finite, got {values[~values.isfinite()][0].item()}.")
    if metric == "euclidean" and values.shape[1]:
        return values
    if not values.shape[1]:
        raise ValueError(f"`{name}` must have at least one column, got shape {tuple(values.shape)}.")
    largest = values.abs().amax(dim=1, keepdim=True)
    if bool((largest == 0).any()):
        raise ValueError(
            f'`{name}` must hold no zero row with `metric="cosine"`, got one at {int((largest == 0).int().argmax())}: '
            "it has no direction."
        )
    scaled = values / largest  # whose squares are neither too large nor all too small
    directions: Tensor = scaled / scaled.norm(dim=1, keepdim=True)
    return directions


def _check_distances(distances: Tensor, num_refs: int, *, within: bool) -> Tensor:
    if distances.shape[1] != num_refs:
        raise ValueError(
            f'`query_embeddings` must hold the distances to all {num_refs} rows with `metric="precomputed"`, '
            f"got shape {tuple(distances.shape)}."
        )
    values = distances if distances.dtype in (torch.float32, torch.float64) else distances.to(_wider(distances))
    missing = values.isnan()
    if within:
        missing.fill_diagonal_(False)  # a query leaves out itself
    if bool(missing.any()):
        query, row = missing.nonzero()[0].tolist()
        raise ValueError(f"`query_embeddings` must hold distances, got nan from query {query} to row {row}.")
    return values


def _wider(values: Tensor) -> torch.dtype:
    return torch.float32 if values.is_floating_point() else torch.float64


def _check_indices(indices: Tensor, num_refs: int) -> Tensor:
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise TypeError(
            f'`query_embeddings` must hold indices of rows, whole numbers, with `metric="retrieved"`, '
            f"got {indices.dtype}."
        )
    indices = indices.long()
    missing = indices == -1
    outside = (indices < 0) & ~missing | (indices >= num_refs)
    if bool(outside.any()):
        raise ValueError(
            f'`query_embeddings` must hold indices from 0 to {num_refs - 1} with `metric="retrieved"`, or -1 where no '
            f"more rows were found, got {indices[outside][0].item()} for query "
            f"{int(outside.any(dim=1).int().argmax())}."
        )
    resumed = (missing[:, :-1] & ~missing[:, 1:]).any(dim=1)
    if bool(resumed.any()):
        query = int(resumed.int().argmax())
        raise ValueError(
            "`query_embeddings` must hold -1, for no more rows found, at the end of a row only, got "
            f"{indices[query].tolist()!s:.60} for query {query}."
        )
    ordered = indices.sort(dim=1).values
    repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(dim=1)
    if bool(repeated.any()):
        raise ValueError(
            f"`query_embeddings` must hold each index once a query, got one twice for query "
            f"{int(repeated.int().argmax())}."
        )
    return indices


def _nonzero(mask: Tensor) -> Tensor:
    """Return where a bool matrix is True, flat: int64, ascending."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # ten times faster than torch
    return mask.reshape(-1).nonzero().squeeze(1)
