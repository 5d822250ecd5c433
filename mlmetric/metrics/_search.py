"""Exact search in an embedding, and the grades of what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.labels import check_labels
from mlmetric.metrics._checks import TensorLike, check_choice, to_tensor
from mlmetric.similarity import SimilarityFunction

Metric = Literal["euclidean", "cosine"]


class Search(NamedTuple):
    """Queries and database on one device, embeddings in float64.

    Distances are sums of squared differences, in float64, not the expanded `|a|^2 - 2ab + |b|^2`: they do not change
    where all rows are shifted, and equal rows are exactly as far away. That takes about twice the time.
    """

    queries: Tensor
    query_labels: Tensor
    refs: Tensor
    ref_labels: Tensor
    within: bool
    """Whether the queries are the database, so that each is to leave out itself."""

    @classmethod
    def check(
        cls,
        query_embeddings: TensorLike,
        query_labels: TensorLike,
        ref_embeddings: TensorLike | None,
        ref_labels: TensorLike | None,
        metric: Metric,
    ) -> Search:
        """Check what is searched."""
        check_choice(metric, "metric", Metric)
        queries, labels = _check_side(query_embeddings, query_labels, "query", metric)
        if ref_embeddings is None and ref_labels is None:
            return cls(queries, labels, queries, labels, within=True)
        if ref_embeddings is None or ref_labels is None:
            given, missing = ("labels", "embeddings") if ref_embeddings is None else ("embeddings", "labels")
            raise ValueError(
                f"`ref_embeddings` and `ref_labels` go together, got `ref_{given}` without `ref_{missing}`."
            )
        refs, other_labels = _check_side(ref_embeddings, ref_labels, "ref", metric)
        for name, ours, theirs in (("embeddings", queries, refs), ("labels", labels, other_labels)):
            if ours.shape[1] != theirs.shape[1]:
                raise ValueError(
                    f"`query_{name}` and `ref_{name}` must have the same number of columns, "
                    f"got {ours.shape[1]} and {theirs.shape[1]}."
                )
        return cls(queries, labels, refs.to(queries.device), other_labels.to(queries.device), within=False)

    def judge(
        self, score: Callable[[Tensor, Tensor], Tensor], similarity: SimilarityFunction, k: int, chunk_size: int
    ) -> Tensor:
        """Score each query, `chunk_size` of them at a time: float64 `(N,)`.

        `score` gets the grades of the first k rows in order of distance, `(B, k)`, and of all rows, `(B, M)`, in
        float64, and returns `(B,)`. Rows at the same distance come in the order of their indices. A query does not
        find itself and has the grade -inf for itself.
        """
        database = len(self.refs) - self.within
        if not 1 <= k <= database:
            raise ValueError(f"`k` must be from 1 to {database}, the rows that a query can retrieve, got {k}.")
        if chunk_size < 1:
            raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}.")
        scores = self.queries.new_empty(len(self.queries))
        for start in range(0, len(scores), chunk_size):
            rows = slice(start, start + chunk_size)
            scores[rows] = score(*self._grade(rows, similarity, k))
        return scores

    def _grade(self, rows: slice, similarity: SimilarityFunction, k: int) -> tuple[Tensor, Tensor]:
        distances = torch.cdist(self.queries[rows], self.refs, compute_mode="donot_use_mm_for_euclid_dist")
        if self.within:
            distances[:, rows].fill_diagonal_(torch.inf)
        nearest, shape = _nearest(distances, k), distances.shape
        del distances
        grades = similarity(self.query_labels[rows], self.ref_labels)
        if grades.shape != shape:
            raise ValueError(
                f"`similarity` must return shape {tuple(shape)}, a grade for each pair of query and row, "
                f"got {tuple(grades.shape)}."
            )
        if bool(grades.isnan().any()):
            raise ValueError("`similarity` must return numbers, got nan.")
        # A copy, for the diagonal is written to and `similarity` may hold on to what it returned.
        grades = grades.to(torch.float64, copy=True)
        if self.within:
            grades[:, rows].fill_diagonal_(-torch.inf)
        return grades.gather(1, nearest), grades


def _check_side(embeddings: TensorLike, labels: TensorLike, side: str, metric: Metric) -> tuple[Tensor, Tensor]:
    values = to_tensor(embeddings, f"{side}_embeddings")
    if values.ndim != 2:
        raise ValueError(f"`{side}_embeddings` must have shape (N, D), got {tuple(values.shape)}.")
    values = values.double()
    if not bool(values.isfinite().all()):
        raise ValueError(f"`{side}_embeddings` must be finite, got {values[~values.isfinite()][0].item()}.")
    matrix = check_labels(to_tensor(labels, f"{side}_labels"), name=f"{side}_labels")
    if len(matrix) != len(values):
        raise ValueError(
            f"`{side}_labels` must have one row for each of the {len(values)} rows of `{side}_embeddings`, "
            f"got {len(matrix)}."
        )
    if metric == "cosine":
        lengths = values.norm(dim=1, keepdim=True)
        if bool((lengths == 0).any()):
            raise ValueError(
                f'`{side}_embeddings` must hold no zero row with `metric="cosine"`, '
                f"got one at {int((lengths == 0).int().argmax())}: it has no direction."
            )
        values = values / lengths
    return values, matrix.to(values.device)


def _nearest(distances: Tensor, k: int) -> Tensor:
    found = distances.topk(k, largest=False)
    indices = found.indices
    # topk takes any of the rows that tie for the last place.
    tied = (distances <= found.values[:, -1:]).sum(dim=1) > k
    indices[tied] = distances[tied].sort(dim=1, stable=True).indices[:, :k]
    indices = indices.sort(dim=1).values
    order = distances.gather(1, indices).sort(dim=1, stable=True).indices
    return indices.gather(1, order)
