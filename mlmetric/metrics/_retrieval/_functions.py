"""What an embedding retrieves, judged by label similarity."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, TypedDict, Unpack

import torch

from mlmetric.metrics._bootstrap import weighable
from mlmetric.metrics._checks import TensorLike, check_choice, check_weight
from mlmetric.metrics._retrieval import _scores as scores
from mlmetric.metrics._retrieval._scores import Denominator, Gain
from mlmetric.metrics._retrieval._search import Metric, Score, Search
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined
from mlmetric.similarity import SimilarityFunction, jaccard

Average = Literal["mean", "none"]


class RetrievalOptions(TypedDict, total=False):
    """What every retrieval metric takes by name.

    Attributes:
        similarity: Grade of a row for a query: any callable `(labels, ref_labels) -> (N, M)`. Jaccard by default:
            counts of shared labels (`inner_product`) reward rows that carry many labels.
        relevance_threshold: A row is relevant at this grade or above, as [`reaches`][mlmetric.similarity.reaches]
            compares them. None, the default: at any grade above 0, which with Jaccard and most others means a shared
            label.
        metric: How the database is ordered. `"euclidean"`, the default, or `"cosine"`, which compares the rows scaled
            to length 1: by the embeddings. `"precomputed"`: `query_embeddings` holds distances instead, `(N, M)`,
            lower is nearer, and `ref_embeddings` is None. `"retrieved"`: it holds indices of rows, whole numbers
            `(N, K)`, each query's in order, such as an index of approximate neighbours returns; -1 at the end of a
            row, as faiss pads it, means that no more was found: a miss of grade 0.
        average: `"mean"` over the queries, the default, or `"none"`: each query.
        sample_weight: Weight of each query in the mean, `(N,)`, or `(B, N)` for B weightings at once.
        zero_division: What an undefined query gets: nan, the default (left out of the mean; with `average="none"`
            these are seen and counted), 0 or 1.
    """

    similarity: SimilarityFunction
    relevance_threshold: float | None
    metric: Metric
    average: Average
    sample_weight: TensorLike | None
    zero_division: float


@weighable
def ndcg_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    gain: Gain = "linear",
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Compare the first k retrieved with the best k there are: normalised discounted cumulative gain (NDCG@k).

    `sum_{i=1..k} g(r_i) / log2(i + 1)` over the rows in order of distance, divided by the same sum over the rows of
    the whole database in order of grade `r`, the label similarity to the query. 1 is best: no order has more gain;
    0 is worst: nothing retrieved is relevant. A query to which nothing in the database is similar, such as one
    without labels, is undefined. Rows at the same distance come in the order of their indices.

    Args:
        query_embeddings: Shape `(N, D)`, any real dtype; compared in float64. With `metric="precomputed"` distances
            `(N, M)`, with `metric="retrieved"` indices `(N, K)`; see `RetrievalOptions`.
        query_labels: Shape `(N, L)`, in [0, 1]: multi-hot, or soft where `similarity` takes that.
        ref_embeddings: The database, shape `(M, D)`. By default the queries themselves; then a query does not
            retrieve itself, by index: a duplicate of it stays.
        ref_labels: Shape `(M, L)`; without it the queries are the database.
        k: How many are looked at, at most what is retrieved (M, or N - 1, or K); None for all.
        gain: `"linear"`: g(r) = r. `"exponential"`: g(r) = 2^r - 1, usual with counts.
        **options: `similarity`, `relevance_threshold`, `metric`, `average`, `sample_weight` and `zero_division`: see
            `RetrievalOptions`. Here grades must be >= 0 and no `relevance_threshold` matters.

    Returns:
        float64, 0-d, or `(N,)` with `average="none"`, or `(B,)` for B weightings, in [0, 1], on the device of
        `query_embeddings`.

    Raises:
        TypeError: If an argument does not hold real numbers, or indices are no whole numbers.
        ValueError: If a shape does not fit, only one of `ref_embeddings` and `ref_labels` is given with embeddings,
            an embedding is not finite (or zero with `"cosine"`), a distance NaN, an index out of range, twice in a
            row or after a -1, a label outside [0, 1], a grade negative or NaN, `k` not from 1 to what is retrieved,
            another argument is none of those named.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> ndcg_at_k(embeddings, labels, k=2, average="none")
        tensor([0.2398,    nan, 0.3869, 0.3801], dtype=torch.float64)
        >>> ndcg_at_k(embeddings, labels, k=2)  # nothing is similar to the second row
        tensor(0.3356, dtype=torch.float64)
        >>> retrieved = torch.tensor([[1, 2], [0, 2], [1, 0], [2, 1]])
        >>> ndcg_at_k(retrieved, labels, k=2, metric="retrieved")
        tensor(0.3356, dtype=torch.float64)

    Source:
        Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, for the
        idea and the linear gain; Burges et al., "Learning to rank using gradient descent", ICML 2005, for the
        exponential gain and the discount 1 / log2(i + 1), which is taken with both gains.
    """
    check_choice(gain, "gain", Gain)
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.ndcg, k=k, gain=gain), k, "ndcg_at_k", options)


@weighable
def acg_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Average the grades of the first k retrieved: average cumulative gain (ACG@k).

    With Jaccard 1 is best: all retrieved carry the query's labels and no others. A query to which nothing is relevant
    is undefined. Arguments, result and errors that are not named here are those of `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> acg_at_k(embeddings, labels, k=2, average="none")  # the first: (0 + 1/2) / 2
        tensor([0.2500,    nan, 0.2500, 0.2500], dtype=torch.float64)

    Source:
        Jarvelin and Kekalainen, "IR evaluation methods for retrieving highly relevant documents", SIGIR 2000.
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.average_grade, k=k), k, "acg_at_k", options)


@weighable
def size_ratio_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Divide the labels that the first k retrieved carry by those of an average row of the database.

    1 is neutral. Above 1, rows with many labels are retrieved more often than others ("hubs"): metrics that count
    shared labels rise with it, though nothing fits better, so this belongs beside them. Undefined where the
    database has no labels or nothing was found. Arguments, result and errors that are not named here are those of
    `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> size_ratio_at_k(embeddings, labels, k=2, average="none")  # the first: 1 of (1 + 1 + 2) / 3
        tensor([0.7500, 0.9000, 0.9000, 0.7500], dtype=torch.float64)

    Source:
        Ours.
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.size_ratio, k=k), k, "size_ratio_at_k", options)


@weighable
def wmap_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Average the mean grade up to each hit among the first k: weighted mean average precision (WMAP@k).

    For each query the mean over its hits of ACG at the rank of the hit; 0 without a hit. With grades 0 and 1 it is
    `map_at_k(denominator="hits")`. A query to which nothing is relevant is undefined. Arguments, result and errors
    that are not named here are those of `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> wmap_at_k(embeddings, labels, k=3, average="none")  # the first: (0.5/2 + 1.5/3) / 2
        tensor([0.3750,    nan, 0.2917, 0.5000], dtype=torch.float64)

    Source:
        Zhao et al., "Deep semantic ranking based hashing for multi-label image retrieval", CVPR 2015, section 4.2.
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.weighted_average_precision, k=k), k, "wmap_at_k", options)


@weighable
def map_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    denominator: Denominator = "min",
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Average the precision at each hit among the first k retrieved: mean average precision (mAP@k).

    1 is best. A query to which nothing is relevant is undefined. With k=None it is mAP over the whole database,
    where the denominators agree. Arguments, result and errors that are not named here are those of `ndcg_at_k`;
    grades may be negative.

    Args:
        query_embeddings: As for `ndcg_at_k`.
        query_labels: As for `ndcg_at_k`.
        ref_embeddings: As for `ndcg_at_k`.
        ref_labels: As for `ndcg_at_k`.
        k: How many are looked at; None for all.
        denominator: What the sum of precisions is divided by; papers use all three. `"min"`: the hits there can be,
            min(R, k) for R relevant rows, so that 1 is within reach. `"relevant"`: R, which holds long lists of
            relevant rows against a query. `"hits"`: the hits there are, which forgives what was not retrieved.
        **options: As for `ndcg_at_k`.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> map_at_k(embeddings, labels, k=2, average="none")  # the first: 1 hit of 2, at rank 2
        tensor([0.2500,    nan, 0.2500, 0.5000], dtype=torch.float64)
        >>> map_at_k(embeddings, labels, k=2, denominator="hits", average="none")
        tensor([0.5000,    nan, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_choice(denominator, "denominator", Denominator)
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.average_precision, k=k, denominator=denominator), k, "map_at_k", options)


@weighable
def map_at_r(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Average the precision at each hit among the first R, R being how many rows are relevant: MAP@R.

    1 is best: the relevant rows come first. Divided by R, so that a rank without a hit counts as 0. A query to
    which nothing is relevant is undefined. Arguments, result and errors that are not named here are those of
    `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> map_at_r(embeddings, labels, average="none")  # the first: R = 2, a hit at rank 2
        tensor([0.2500,    nan, 0.2500, 0.5000], dtype=torch.float64)

    Source:
        Musgrave et al., "A metric learning reality check", ECCV 2020, section 3.2.
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    return _judge(search, scores.average_precision_at_r, search.ranker.depth, "map_at_r", options)


@weighable
def r_precision(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Count the share of relevant rows among the first R retrieved, R being how many are relevant.

    1 is best: the relevant rows come first. A query to which nothing is relevant is undefined. Arguments, result
    and errors that are not named here are those of `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> r_precision(embeddings, labels, average="none")
        tensor([0.5000,    nan, 0.5000, 0.5000], dtype=torch.float64)
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    return _judge(search, scores.r_precision, search.ranker.depth, "r_precision", options)


@weighable
def precision_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Count the share of relevant rows among the first k retrieved.

    1 is best, 0 worst; a query with fewer than k relevant rows in the database cannot reach 1. A query with none,
    such as one without labels, is undefined. Arguments, result and errors that are not named here are those of
    `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> precision_at_k(embeddings, labels, k=2, average="none")
        tensor([0.5000,    nan, 0.5000, 0.5000], dtype=torch.float64)
        >>> precision_at_k(embeddings, labels, k=2, relevance_threshold=0.9, average="none")
        tensor([0., nan, nan, 0.], dtype=torch.float64)
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.precision, k=k), k, "precision_at_k", options)


@weighable
def hit_rate_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Count the share of queries that retrieve anything relevant among the first k.

    1 is best, 0 worst. Metric-learning papers call this Recall@k; it is not the share of the relevant rows that are
    found, which is `recall_at_k`. A query to which nothing is relevant is undefined. Arguments, result and errors
    that are not named here are those of `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> hit_rate_at_k(embeddings, labels, k=1, average="none")
        tensor([0., nan, 0., 1.], dtype=torch.float64)
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.hit_rate, k=k), k, "hit_rate_at_k", options)


@weighable
def recall_at_k(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = 10,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Count the share of the relevant rows of the database that are among the first k retrieved.

    1 is best, 0 worst; a query with more than k relevant rows cannot reach 1. A query with none is undefined. What
    metric-learning papers call Recall@k is `hit_rate_at_k`. Arguments, result and errors that are not named here
    are those of `ndcg_at_k`; grades may be negative.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> recall_at_k(embeddings, labels, k=1, average="none")
        tensor([0.0000,    nan, 0.0000, 0.5000], dtype=torch.float64)
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.recall, k=k), k, "recall_at_k", options)


@weighable
def mrr(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None = None,
    ref_labels: TensorLike | None = None,
    *,
    k: int | None = None,
    **options: Unpack[RetrievalOptions],
) -> torch.Tensor:
    """Average the reciprocal of the rank of the first relevant row: mean reciprocal rank (MRR).

    1 is best. A query without a hit among the first k counts 0, one to which nothing is relevant is undefined.
    Arguments, result and errors that are not named here are those of `ndcg_at_k`; grades may be negative.

    Args:
        query_embeddings: As for `ndcg_at_k`.
        query_labels: As for `ndcg_at_k`.
        ref_embeddings: As for `ndcg_at_k`.
        ref_labels: As for `ndcg_at_k`.
        k: How many are looked at; None, the default, for all.
        **options: As for `ndcg_at_k`.

    Examples:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> mrr(embeddings, labels, average="none")
        tensor([0.5000,    nan, 0.5000, 1.0000], dtype=torch.float64)
    """
    search = _search(query_embeddings, query_labels, ref_embeddings, ref_labels, options)
    k = search.check_k(k)
    return _judge(search, partial(scores.reciprocal_rank, k=k), k, "mrr", options)


def _search(
    query_embeddings: TensorLike,
    query_labels: TensorLike,
    ref_embeddings: TensorLike | None,
    ref_labels: TensorLike | None,
    options: RetrievalOptions,
) -> Search:
    unknown = set(options) - set(RetrievalOptions.__annotations__)
    if unknown:
        raise TypeError(f"Retrieval metrics take no argument `{min(unknown)}`.")
    metric = options.get("metric", "euclidean")
    return Search.check(query_embeddings, query_labels, ref_embeddings, ref_labels, metric)


def _judge(search: Search, score: Score, depth: int, name: str, options: RetrievalOptions) -> torch.Tensor:
    average, zero_division = options.get("average", "mean"), options.get("zero_division", math.nan)
    check_choice(average, "average", Average)
    if average == "none" and options.get("sample_weight") is not None:
        raise ValueError(
            '`sample_weight` weighs the mean over queries and goes with `average="mean"` only, got "none".'
        )
    weight = check_weight(options.get("sample_weight"), len(search.query_labels), search.query_labels.device)
    similarity = options.get("similarity", jaccard)
    (per_query,) = search.judge([score], similarity, options.get("relevance_threshold"), depth)
    if average == "none":
        return fill_undefined(per_query, zero_division)
    return mean_of_defined(per_query, zero_division, weight=weight)
