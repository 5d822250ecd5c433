"""Checked inputs of retrieval metrics: labels of queries and database, and the ranking of the database."""

from __future__ import annotations

import operator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.metrics._inputs import TensorLike, check_choice, to_tensor
from mlmetric.metrics._retrieval._ranking import DistanceRanking, EmbeddingRanking, IndexRanking, Ranking

Metric = Literal["euclidean", "cosine", "precomputed", "retrieved"]


class RetrievalInputs(NamedTuple):
    """Labels of the queries and of the database, and the ranking of the database for each query."""

    labels: Tensor
    ref_labels: Tensor
    ranking: Ranking
    exclude_self: bool
    """Whether the queries are the database, so that each query is excluded from its own results."""

    counts: Tensor | None = None
    """Number of rows of the database that each row of `ref_labels` stands for, int64 `(M,)`; None for one each."""

    @property
    def database_size(self) -> int:
        """Number of rows that a query can retrieve."""
        if self.counts is not None:
            return int(self.counts.sum())
        return len(self.ref_labels) - self.exclude_self

    def clip_k(self, k: int | None) -> int:
        """Return k, clipped to the size of the database; for None, the number of all retrieved rows."""
        if self.database_size < 1 or not self.ranking.max_k:
            raise ValueError("The database must contain at least one row that a query can retrieve, got none.")
        if k is None:
            return min(self.ranking.max_k, self.database_size)
        clipped = min(check_k(k), self.database_size)
        if clipped > self.ranking.max_k:
            raise ValueError(
                f'`embeddings` must contain at least {clipped} indices for each query with `metric="retrieved"` and '
                f"`k={k}`, not counting the query itself, got {self.ranking.max_k}."
            )
        return clipped


def check_k(k: int) -> int:
    """Check that `k` is an integer of at least 1."""
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"`k` must be an integer, got {k!r}.") from None
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    return k


def check_retrieval_inputs(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None,
    ref_labels: LabelsLike | None,
    metric: Metric,
) -> RetrievalInputs:
    """Check the arguments of a retrieval metric, and rank the database."""
    check_choice(metric, "metric", Metric)
    queries = _check_matrix(embeddings, "embeddings")
    query_labels = _check_labels(labels, "labels", queries, "embeddings")
    by_embeddings = metric in ("euclidean", "cosine")
    if by_embeddings and (ref_emb is None) != (ref_labels is None):
        given, missing = ("ref_labels", "ref_emb") if ref_emb is None else ("ref_emb", "ref_labels")
        raise ValueError(f"`ref_emb` and `ref_labels` must be given together, got `{given}` without `{missing}`.")
    if not by_embeddings and ref_emb is not None:
        raise ValueError(f'`ref_emb` must be None with `metric="{metric}"`, which does not compare embeddings.')
    refs = None if ref_emb is None else _check_matrix(ref_emb, "ref_emb").to(queries.device)
    database_labels = query_labels
    if ref_labels is not None:
        database_labels = _check_labels(ref_labels, "ref_labels", refs, "ref_emb").to(query_labels.device)
    check_columns(query_labels, database_labels, "labels", "ref_labels")
    if refs is not None:
        check_columns(queries, refs, "embeddings", "ref_emb")
    exclude_self = ref_labels is None
    ranking: Ranking
    if by_embeddings:
        ranking = EmbeddingRanking(
            check_embeddings(queries, "embeddings", metric),
            None if refs is None else check_embeddings(refs, "ref_emb", metric),
        )
    elif metric == "precomputed":
        distances = _check_distances(queries, len(database_labels), exclude_self=exclude_self)
        ranking = DistanceRanking(distances, exclude_self=exclude_self)
    else:
        ranking = IndexRanking(
            check_row_numbers(queries, "embeddings", len(database_labels)), exclude_self=exclude_self
        )
    return RetrievalInputs(query_labels, database_labels, ranking, exclude_self)


def _check_matrix(values: TensorLike, name: str) -> Tensor:
    matrix = to_tensor(values, name)
    if matrix.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, D), got {tuple(matrix.shape)}.")
    return matrix


def _check_labels(labels: LabelsLike, name: str, embeddings: Tensor | None, embeddings_name: str) -> Tensor:
    matrix = to_tensor(label_tensor(labels, name=name, used_by="this metric"), name)
    if embeddings is None:
        return matrix
    if len(matrix) != len(embeddings):
        raise ValueError(
            f"`{name}` must have one row for each of the {len(embeddings)} rows of `{embeddings_name}`, "
            f"got {len(matrix)}."
        )
    return matrix.to(embeddings.device)


def check_columns(queries: Any, refs: Any, name: str, ref_name: str) -> None:
    """Check that two matrices have the same number of columns."""
    if queries.shape[1] != refs.shape[1]:
        raise ValueError(
            f"`{name}` and `{ref_name}` must have the same number of columns, "
            f"got {queries.shape[1]} and {refs.shape[1]}."
        )


def check_embeddings(embeddings: Tensor, name: str, metric: Metric, start: int = 0) -> Tensor:
    """Return embeddings as float64; with `metric="cosine"`, scaled to unit length.

    Args:
        embeddings: Shape `(N, D)`.
        name: Name of the argument in error messages.
        metric: `"euclidean"` or `"cosine"`.
        start: Number of the first row in error messages.
    """
    values = embeddings.double()
    if not bool(values.isfinite().all()):
        row, column = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"`{name}` must be finite, got {values[row, column].item()} at row {start + row}.")
    if not values.shape[1]:
        raise ValueError(f"`{name}` must have at least one column, got shape {tuple(values.shape)}.")
    if metric == "euclidean":
        return values
    largest = values.abs().amax(dim=1, keepdim=True)
    if bool((largest == 0).any()):
        raise ValueError(
            f'`{name}` must contain no zero row with `metric="cosine"`, because it has no direction; got one at row '
            f"{start + int((largest == 0).int().argmax())}."
        )
    scaled = values / largest  # so that squares neither overflow nor all underflow
    unit: Tensor = scaled / scaled.norm(dim=1, keepdim=True)
    return unit


def _check_distances(distances: Tensor, num_refs: int, *, exclude_self: bool) -> Tensor:
    if distances.shape[1] != num_refs:
        raise ValueError(
            f"`embeddings` must contain the distances to all {num_refs} rows of the database with "
            f'`metric="precomputed"`, got shape {tuple(distances.shape)}.'
        )
    values = distances
    if distances.dtype not in (torch.float32, torch.float64):
        values = distances.to(torch.float32 if distances.is_floating_point() else torch.float64)
    missing = values.isnan()
    if exclude_self:
        missing.fill_diagonal_(False)  # the distance of a query to itself is not used
    if bool(missing.any()):
        query, row = missing.nonzero()[0].tolist()
        raise ValueError(f"`embeddings` must contain distances, got NaN from query {query} to row {row}.")
    return values


def check_row_numbers(indices: Tensor, name: str, num_rows: int | None = None) -> Tensor:
    """Check numbers of retrieved rows, shape `(N, K)`, and return them as int64; -1 at the end of a row is padding.

    Args:
        indices: The numbers.
        name: Name of the argument in error messages.
        num_rows: Size of the database; None if it is not known. If it is, `metric="retrieved"` is in the messages.
    """
    condition = "" if num_rows is None else ' with `metric="retrieved"`'
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise TypeError(f"`{name}` must contain integer indices{condition}, got {indices.dtype}.")
    if indices.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, K), got {tuple(indices.shape)}.")
    indices = indices.long()
    missing = indices == -1
    invalid = (indices < 0) & ~missing
    if num_rows is not None:
        invalid |= indices >= num_rows
    if bool(invalid.any()):
        allowed = "of at least 0" if num_rows is None else f"from 0 to {num_rows - 1}"
        raise ValueError(
            f"`{name}` must contain indices {allowed}{condition}, or -1 as padding, got {indices[invalid][0].item()} "
            f"for query {int(invalid.any(dim=1).int().argmax())}."
        )
    padded_inside = (missing[:, :-1] & ~missing[:, 1:]).any(dim=1)
    if bool(padded_inside.any()):
        query = int(padded_inside.int().argmax())
        raise ValueError(
            f"`{name}` must contain -1, the padding, at the end of a row only, got {indices[query].tolist()!s:.60} for "
            f"query {query}."
        )
    ordered = indices.sort(dim=1).values
    repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(dim=1)
    if bool(repeated.any()):
        raise ValueError(
            f"`{name}` must contain each index at most once for each query, got a repeated index for query "
            f"{int(repeated.int().argmax())}."
        )
    return indices
