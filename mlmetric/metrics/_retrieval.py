"""What an embedding retrieves, judged by label similarity."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._checks import TensorLike, check_choice
from mlmetric.metrics._search import Metric, Search
from mlmetric.metrics._undefined import Empty, settle, settled_mean
from mlmetric.similarity import SimilarityFunction, jaccard

Average = Literal["mean", "none"]
Gain = Literal["linear", "exponential"]


def ndcg_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int = 10,
    similarity: SimilarityFunction = jaccard,
    gain: Gain = "linear",
    metric: Metric = "euclidean",
    average: Average = "mean",
    empty: Empty = "nan",
    chunk_size: int = 256,
) -> Tensor:
    """Compare the first k retrieved with the best k there are: normalised discounted cumulative gain (NDCG@k).

    `sum_{i=1..k} g(r_i) / log2(i + 1)` over the rows in order of distance, divided by the same sum over the rows of
    the whole database in order of grade `r`, the label similarity to the query. 1 is best: no order has more gain;
    0 is worst: nothing retrieved is relevant. A query to which nothing in the database is similar, such as one
    without labels, is undefined. Rows at the same distance come in the order of their indices.

    Args:
        query_embeddings: Shape `(N, D)`, any real dtype; compared in float64.
        query_labels: Shape `(N, L)`, in [0, 1]: multi-hot, or soft where `similarity` takes that.
        ref_embeddings: The database, shape `(M, D)`. By default the queries themselves; then a query does not
            retrieve itself, by index: a duplicate of it stays.
        ref_labels: Shape `(M, L)`; given if and only if `ref_embeddings` is.
        k: How many are retrieved, at most what the database holds (M, or N - 1).
        similarity: Grade of a row for a query: any callable `(labels, ref_labels) -> (N, M)`, >= 0. Jaccard by
            default: counts of shared labels (`inner_product`) reward rows that carry many labels.
        gain: `"linear"`: g(r) = r. `"exponential"`: g(r) = 2^r - 1, usual with counts.
        metric: `"euclidean"`, or `"cosine"`, which ranks the rows scaled to length 1.
        average: `"mean"` over the queries, or `"none"`: each query.
        empty: What an undefined query gets: `"nan"` (left out of the mean; with `average="none"` these are seen and
            counted), `"zero"`, `"one"` or `"error"`.
        chunk_size: How many queries are compared at once. Memory is about 40 * chunk_size * M bytes.

    Returns:
        float64, 0-d or `(N,)`, in [0, 1], on the device of `query_embeddings`.

    Raises:
        TypeError: If an argument does not hold real numbers.
        ValueError: If a shape does not fit, only one of `ref_embeddings` and `ref_labels` is given, an embedding is
            not finite (or zero with `"cosine"`), a label lies outside [0, 1], a grade is negative or NaN, `k` is
            not from 1 to the size of the database, another argument is none of the above, or `empty` is `"error"` and
            a query is undefined.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> ndcg_at_k(embeddings, labels, k=2, average="none")
        tensor([0.2398,    nan, 0.3869, 0.3801], dtype=torch.float64)
        >>> ndcg_at_k(embeddings, labels, k=2)  # nothing is similar to the second row
        tensor(0.3356, dtype=torch.float64)

    Source:
        Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, for the
        idea and the linear gain; Burges et al., "Learning to rank using gradient descent", ICML 2005, for the
        exponential gain and the discount 1 / log2(i + 1), which is taken with both gains.
    """
    check_choice(gain, "gain", Gain)

    def checked(labels: Tensor, ref_labels: Tensor) -> Tensor:
        grades = similarity(labels, ref_labels)
        if bool((grades < 0).any()):
            raise ValueError(
                f"`similarity` must return grades >= 0, got {grades.min().item():g}. `.clamp(min=0)` cuts them off."
            )
        return grades

    def dcg(grades: Tensor) -> Tensor:
        gains = grades if gain == "linear" else torch.exp2(grades) - 1
        return gains @ (1 / torch.arange(2, k + 2, dtype=torch.float64, device=grades.device).log2())

    def ndcg(retrieved: Tensor, grades: Tensor) -> Tensor:
        return dcg(retrieved) / dcg(grades.topk(k).values)

    search = Search.check(query_embeddings, query_labels, ref_embeddings, ref_labels, metric)
    return _average(search.judge(ndcg, checked, k, chunk_size), average, empty, "ndcg_at_k")


def precision_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int = 10,
    similarity: SimilarityFunction = jaccard,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    empty: Empty = "nan",
    chunk_size: int = 256,
) -> Tensor:
    """Count the share of relevant rows among the first k retrieved.

    1 is best, 0 worst; a query with fewer than k relevant rows in the database cannot reach 1. A query with none,
    such as one without labels, is undefined. Rows at the same distance come in the order of their indices.
    Arguments, result and errors that are not named here are those of `ndcg_at_k`; grades may be negative.

    Args:
        query_embeddings: Shape `(N, D)`.
        query_labels: Shape `(N, L)`.
        ref_embeddings: The database, shape `(M, D)`; the queries themselves by default.
        ref_labels: Shape `(M, L)`.
        k: How many are retrieved.
        similarity: Grade of a row for a query.
        relevance_threshold: A row is relevant at this grade or above, compared in float32, the precision of the
            similarities. None: at any grade above 0, which with Jaccard and most others means a shared label.
        metric: `"euclidean"` or `"cosine"`.
        average: `"mean"` over the queries, or `"none"`: each query.
        empty: What an undefined query gets: `"nan"`, `"zero"`, `"one"` or `"error"`.
        chunk_size: How many queries are compared at once.

    Returns:
        float64, 0-d or `(N,)`, in [0, 1], on the device of `query_embeddings`.

    Raises:
        TypeError: As `ndcg_at_k`.
        ValueError: As `ndcg_at_k`, or if `relevance_threshold` is NaN.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> precision_at_k(embeddings, labels, k=2, average="none")
        tensor([0.5000,    nan, 0.5000, 0.5000], dtype=torch.float64)
        >>> precision_at_k(embeddings, labels, k=2, relevance_threshold=0.9, average="none")
        tensor([0., nan, nan, 0.], dtype=torch.float64)
    """
    if relevance_threshold is not None and math.isnan(relevance_threshold):
        raise ValueError(f"`relevance_threshold` must be a number or None, got {relevance_threshold}.")

    def relevant(grades: Tensor) -> Tensor:
        return grades > 0 if relevance_threshold is None else grades.float() >= relevance_threshold

    def precision(retrieved: Tensor, grades: Tensor) -> Tensor:
        return torch.where(relevant(grades).any(dim=1), relevant(retrieved).double().mean(dim=1), torch.nan)

    search = Search.check(query_embeddings, query_labels, ref_embeddings, ref_labels, metric)
    return _average(search.judge(precision, similarity, k, chunk_size), average, empty, "precision_at_k")


def _average(per_query: Tensor, average: Average, empty: Empty, name: str) -> Tensor:
    check_choice(average, "average", Average)
    if average == "none":
        return settle(per_query, empty, name, unit="query")
    return settled_mean(per_query, empty, name, unit="query")
