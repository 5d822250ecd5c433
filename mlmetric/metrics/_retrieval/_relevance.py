"""Retrieval metrics of binary relevance: a row is relevant to a query or not."""

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
from mlmetric.metrics._retrieval._graded import acg_at_k
from mlmetric.metrics._retrieval._query_scores import Denominator
from mlmetric.metrics._retrieval._retrieval_inputs import Metric
from mlmetric.similarity import SimilarityFunction


@supports_resample_weights
@inherit_docs(acg_at_k)
def precision_at_k(
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
    """Compute the fraction of the first k retrieved rows that are relevant (precision@k).

    1 is best, 0 is worst; a query with fewer than k relevant rows in the database cannot reach 1. If k is larger than
    the database, the fraction is computed over the whole database. A query without a relevant row in the database, such
    as a query without labels, is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import precision_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> precision_at_k(embeddings, labels, k=2, average="none")
        tensor([0.5000,    nan, 0.5000, 0.5000], dtype=torch.float64)
        >>> precision_at_k(embeddings, labels, k=2, relevance_threshold=0.9, average="none")
        tensor([0., nan, nan, 0.], dtype=torch.float64)
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.precision, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k)
def recall_at_k(
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
    """Compute the fraction of the relevant rows of the database that are among the first k retrieved rows (recall@k).

    1 is best, 0 is worst; a query with more than k relevant rows cannot reach 1. A query without a relevant row in the
    database is undefined. Metric-learning papers use the name Recall@k for `hit_rate_at_k`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import recall_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> recall_at_k(embeddings, labels, k=1, average="none")
        tensor([0.0000,    nan, 0.0000, 0.5000], dtype=torch.float64)
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.recall, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k)
def hit_rate_at_k(
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
    """Compute the fraction of queries with at least one relevant row among the first k retrieved rows.

    1 is best, 0 is worst. Metric-learning papers call it Recall@k; `recall_at_k` is the fraction of the relevant rows
    that are retrieved. A query without a relevant row in the database is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import hit_rate_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> hit_rate_at_k(embeddings, labels, k=1, average="none")
        tensor([0., nan, 0., 1.], dtype=torch.float64)
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.hit_rate, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k)
def map_at_k(  # noqa: D417
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = 10,
    denominator: Denominator = "min",
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the mean average precision of the first k retrieved rows (mAP@k).

    The precision at each relevant row among the first k is summed and divided by `denominator`. 1 is best. With
    `k=None` it is mAP over the whole database, for which all denominators are equal. A query without a relevant row in
    the database is undefined.

    Args:
        denominator: Divisor of the sum of precisions; all three are in use. `"min"`: min(R, k) for R relevant rows,
            the highest possible number of relevant rows, so that 1 can be reached. `"relevant"`: R, so that a query
            with more than k relevant rows cannot reach 1. `"hits"`: the number of relevant rows among the first k, so
            that relevant rows that are not retrieved are ignored.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import map_at_k
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> map_at_k(embeddings, labels, k=2, average="none")  # the first: one relevant row of two, at rank 2
        tensor([0.2500,    nan, 0.2500, 0.5000], dtype=torch.float64)
        >>> map_at_k(embeddings, labels, k=2, denominator="hits", average="none")
        tensor([0.5000,    nan, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_choice(denominator, "denominator", Denominator)
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    score = partial(scores.average_precision, denominator=denominator)
    return evaluate(score, k, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k)
def map_at_r(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the mean average precision of the first R retrieved rows, for a query with R relevant rows (MAP@R).

    The precision at each relevant row among the first R is summed and divided by R. 1 is best: the relevant rows come
    first. A query without a relevant row in the database is undefined.

    Raises:
        TypeError: If an argument does not contain real numbers, or the indices are not integers.
        ValueError: If shapes do not match, only one of `ref_emb` and `ref_labels` is given with embeddings, an
            embedding is not finite (or zero with `metric="cosine"`), a distance is NaN, an index is out of range, is
            repeated in a row or follows a -1, a label lies outside [0, 1], a grade is NaN, fewer indices are given for
            a query than rows are relevant, the database is empty, or another argument is invalid.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import map_at_r
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> map_at_r(embeddings, labels, average="none")  # the first: R = 2, a relevant row at rank 2
        tensor([0.2500,    nan, 0.2500, 0.5000], dtype=torch.float64)

    Source:
        Musgrave et al., "A metric learning reality check", ECCV 2020, section 3.2.
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.average_precision_at_r, None, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(map_at_r)
def r_precision(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the fraction of the first R retrieved rows that are relevant, for a query with R relevant rows.

    1 is best: the relevant rows come first. A query without a relevant row in the database is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import r_precision
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> r_precision(embeddings, labels, average="none")
        tensor([0.5000,    nan, 0.5000, 0.5000], dtype=torch.float64)
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.r_precision, None, (embeddings, labels, ref_emb, ref_labels), options)


@supports_resample_weights
@inherit_docs(acg_at_k, k="None evaluates=>None, the default, evaluates")
def mrr(
    embeddings: TensorLike,
    labels: LabelsLike,
    ref_emb: TensorLike | None = None,
    ref_labels: LabelsLike | None = None,
    *,
    k: int | None = None,
    similarity: SimilarityFunction | None = None,
    relevance_threshold: float | None = None,
    metric: Metric = "euclidean",
    average: Average = "mean",
    sample_weight: TensorLike | None = None,
    zero_division: float = math.nan,
) -> torch.Tensor:
    """Compute the mean reciprocal rank of the first relevant row (MRR).

    1 is best. A query without a relevant row among the first k counts as 0; a query without a relevant row in the
    database is undefined.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import mrr
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]])
        >>> mrr(embeddings, labels, average="none")
        tensor([0.5000,    nan, 0.5000, 1.0000], dtype=torch.float64)
    """
    options = EvaluationOptions(similarity, relevance_threshold, metric, average, sample_weight, zero_division)
    return evaluate(scores.reciprocal_rank, k, (embeddings, labels, ref_emb, ref_labels), options)
