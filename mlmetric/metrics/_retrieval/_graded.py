"""Retrieval metrics of relevance grades, and the size ratio of the retrieved rows."""

from __future__ import annotations

import math
from functools import partial

import torch

from mlmetric._docstrings import inherit_docs
from mlmetric.labels import LabelsLike
from mlmetric.metrics._bootstrap import supports_resample_weights
from mlmetric.metrics._inputs import TensorLike, check_choice
from mlmetric.metrics._retrieval import _query_scores as scores
from mlmetric.metrics._retrieval._evaluation import Average, EvaluationOptions, evaluate
from mlmetric.metrics._retrieval._query_scores import Gain
from mlmetric.metrics._retrieval._retrieval_inputs import Metric
from mlmetric.similarity import SimilarityFunction


@supports_resample_weights
def ndcg_at_k(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = 10,
    gain: Gain = "linear",
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the normalised discounted cumulative gain of the first k retrieved rows (NDCG@k).

    The database is ranked by distance to the query, and the grade `r_i` of the row at rank i is the similarity of its
    labels to the labels of the query. `DCG@k = sum_{i=1..k} g(r_i) / log2(i + 1)` is divided by its highest possible
    value, the DCG@k of the k highest grades in the whole database. 1 is best; 0 means that no retrieved row has a grade
    above 0. A query is undefined if no row of the database has a grade above 0, for example if the query has no labels.
    Rows at the same distance are ranked by index.

    Args:
        embeddings: Embeddings of the queries, shape `(N, D)`, any real dtype; distances are computed in float64. With
            `metric="precomputed"`: distances, shape `(N, M)`. With `metric="retrieved"`: indices, shape `(N, K)`.
        labels: Labels of the queries, shape `(N, L)`, multi-hot in {0, 1}, or soft in [0, 1] if `similarity` supports
            soft labels: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.
        ref_emb: Embeddings of the database, shape `(M, D)`. By default the queries are the database, and each query is
            excluded from its own results by index; its duplicates are not excluded.
        ref_labels: Labels of the database, shape `(M, L)`, of the same kinds as `labels`. By default the queries are
            the database.
        k: Number of retrieved rows that are evaluated. A k larger than the database (M rows, or N - 1 if the queries
            are the database) is clipped to its size. None evaluates all retrieved rows.
        gain: Gain of a grade r. `"linear"`: `g(r) = r`. `"exponential"`: `g(r) = 2**r - 1`, common for counts.
        similarity: Relevance grade of each row for each query: a callable `(labels, ref_labels) -> (N, M)`.
            Grades must be >= 0. None uses [`jaccard`][mlmetric.similarity.jaccard]; the number of shared labels
            (`inner_product`) favours rows with many labels.
        relevance_threshold: Lowest grade of a relevant row, compared by [`reaches`][mlmetric.similarity.reaches].
            None, the default: any grade above 0, which for `jaccard` means at least one shared label.
            NDCG does not use it.
        metric: How the database is ranked. `"euclidean"`, the default: by Euclidean distance of the embeddings.
            `"cosine"`: by cosine distance. `"precomputed"`: by the distances that `embeddings` contains; `ref_emb` must
            be None. `"retrieved"`: `embeddings` contains the integer indices of the retrieved rows, nearest first, such
            as the results of an approximate nearest-neighbour search; `ref_emb` must be None. -1 at the end of a row is
            padding, as in faiss: it counts as a retrieved row of grade 0 that is not relevant.
        average: `"mean"`, the default: mean over the queries. `"none"`: one value for each query.
        sample_weight: Weight of each query in the mean, shape `(N,)`. By default all queries have the same weight.
        zero_division: Value of an undefined query: nan, the default, excludes it from the mean; 0.0 or 1.0 counts it
            with this value.

    Returns:
        float64 in [0, 1], 0-d, or shape `(N,)` with `average="none"`, on the device of `embeddings`.

    Raises:
        TypeError: If an argument does not contain real numbers, the indices are not integers, or `k` is not an integer.
        ValueError: If shapes do not match, only one of `ref_emb` and `ref_labels` is given with embeddings, an
            embedding is not finite (or zero with `metric="cosine"`), a distance is NaN, an index is out of range, is
            repeated in a row or follows a -1, a label lies outside [0, 1], a grade is negative or NaN, `k` is below 1,
            fewer than min(k, database) indices are given for each query, the database is empty, or another argument
            is invalid.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import ndcg_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> ndcg_at_k(embeddings, labels, k=2, average="none")
        tensor([0.2398,    nan, 0.3869, 0.3801], dtype=torch.float64)
        >>> ndcg_at_k(embeddings, labels, k=2)  # no row shares a label with the second row
        tensor(0.3356, dtype=torch.float64)
        >>> retrieved = torch.tensor([[1, 2], [0, 2], [1, 0], [2, 1]])
        >>> ndcg_at_k(retrieved, labels, k=2, metric="retrieved")
        tensor(0.3356, dtype=torch.float64)

    Source:
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002, for the idea
        and the linear gain; Burges et al., "Learning to rank using gradient descent", ICML 2005, for the exponential
        gain and the discount 1 / log2(i + 1), which both gains use here.
    """
    check_choice(gain, "gain", Gain)
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(partial(scores.ndcg, gain=gain), k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(
    ndcg_at_k,
    similarity="Grades must be >= 0=>Grades may be negative",
    relevance_threshold="\n        NDCG does not use it.=>",
)
def acg_at_k(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = 10,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the average cumulative gain (ACG@k): the mean grade of the first k retrieved rows.

    With Jaccard similarity, 1 is best: all retrieved rows have exactly the labels of the query. A query without a
    relevant row in the database is undefined.

    Returns:
        float64, 0-d, or shape `(N,)` with `average="none"`, on the device of `embeddings`.

    Raises:
        TypeError: If an argument does not contain real numbers, the indices are not integers, or `k` is not an integer.
        ValueError: If shapes do not match, only one of `ref_emb` and `ref_labels` is given with embeddings, an
            embedding is not finite (or zero with `metric="cosine"`), a distance is NaN, an index is out of range, is
            repeated in a row or follows a -1, a label lies outside [0, 1], a grade is NaN, `k` is below 1, fewer
            indices are given for each query than are evaluated, the database is empty, or another argument is invalid.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import acg_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> acg_at_k(embeddings, labels, k=2, average="none")  # the first: (0 + 1/2) / 2
        tensor([0.2500,    nan, 0.2500, 0.2500], dtype=torch.float64)

    Source:
        Järvelin and Kekäläinen, "IR evaluation methods for retrieving highly relevant documents", SIGIR 2000.
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.mean_grade, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k)
def wmap_at_k(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = 10,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the weighted mean average precision of the first k retrieved rows (WMAP@k).

    The value of a query is the mean, over the relevant rows among its first k, of the mean grade up to the rank of the
    row; it is 0 if none of the first k is relevant. With grades 0 and 1 it equals `map_at_k(denominator="hits")`. A
    query without a relevant row in the database is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import wmap_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> wmap_at_k(embeddings, labels, k=3, average="none")  # the first: (0.5/2 + 1.5/3) / 2
        tensor([0.3750,    nan, 0.2917, 0.5000], dtype=torch.float64)

    Source:
        Zhao et al., "Deep semantic ranking based hashing for multi-label image retrieval", CVPR 2015, section 4.2.
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.weighted_average_precision, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(
    acg_at_k,
    metric="it counts as a retrieved row of grade 0 that is not relevant=>the mean is over the other retrieved rows",
)
def size_ratio_at_k(  # noqa: D417
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = 10,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Divide the mean number of labels of the first k retrieved rows by the mean number in the database.

    1 is neutral. A value above 1 means that rows with many labels are retrieved more often than others (hubs). Metrics
    that count shared labels then increase although the retrieved rows match no better, so report this ratio together
    with them. It is undefined if the database has no labels or nothing was retrieved.

    Args:
        similarity: As in the other retrieval metrics; the ratio does not depend on it. None uses
            [`jaccard`][mlmetric.similarity.jaccard].
        relevance_threshold: As in the other retrieval metrics; the ratio does not depend on it.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import size_ratio_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> size_ratio_at_k(embeddings, labels, k=2, average="none")  # the first: 1 / ((1 + 1 + 2) / 3)
        tensor([0.7500, 0.9000, 0.9000, 0.7500], dtype=torch.float64)

    Source:
        Introduced by this library.
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.size_ratio, k, (embeddings, labels, ref_emb, ref_labels), options)
