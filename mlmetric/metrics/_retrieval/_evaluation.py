"""Evaluation of retrieval: scores of all queries, and their average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mlmetric._label_dtypes import widen_integers
from mlmetric.labels import LabelsLike
from mlmetric.metrics._inputs import TensorLike, check_choice, check_weights
from mlmetric.metrics._retrieval._query_scores import RetrievalResults
from mlmetric.metrics._retrieval._retrieval_inputs import Metric, RetrievalInputs, check_retrieval_inputs
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined
from mlmetric.similarity import SimilarityFunction, jaccard, reaches

Average = Literal["mean", "none"]
QueriesAndDatabase = tuple[TensorLike, LabelsLike, TensorLike | None, LabelsLike | None]
"""`embeddings`, `labels`, `ref_emb` and `ref_labels`."""
Score = Callable[[RetrievalResults], Tensor]
"""Score of each query in a batch: float64 `(B,)`, NaN where undefined."""
MAX_PAIRS = 2**21
"""Number of pairs of a query and a row that are evaluated at once: 16 MB for each float64 matrix."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Keyword arguments that all retrieval metrics have in common."""

    similarity: SimilarityFunction | None
    relevance_threshold: float | None
    metric: Metric
    average: Average
    sample_weight: TensorLike | None
    zero_division: float


def evaluate(
    score: Callable[[RetrievalResults, int], Tensor],
    k: int | None,
    rows: QueriesAndDatabase,
    options: EvaluationOptions,
) -> Tensor:
    """Score each query by its first k rows, and average according to `options`."""
    inputs = check_retrieval_inputs(*rows, options.metric)
    k = inputs.clip_k(k)
    check_choice(options.average, "average", Average)
    if options.average == "none" and options.sample_weight is not None:
        raise ValueError('`sample_weight` requires `average="mean"`, got "none".')
    weight = check_weights(options.sample_weight, len(inputs.labels), inputs.labels.device)
    similarity = jaccard if options.similarity is None else options.similarity
    (values,) = score_queries(inputs, [lambda results: score(results, k)], similarity, options.relevance_threshold, k)
    if options.average == "none":
        return fill_undefined(values, options.zero_division)
    return mean_of_defined(values, options.zero_division, weight=weight)


def score_queries(
    inputs: RetrievalInputs,
    scores: Sequence[Score],
    similarity: SimilarityFunction,
    relevance_threshold: float | None,
    k: int,
) -> list[Tensor]:
    """Compute each of `scores` for each query, from the first k rows: float64 `(N,)` each."""
    if relevance_threshold is not None and math.isnan(relevance_threshold):
        raise ValueError(f"`relevance_threshold` must be a number or None, got {relevance_threshold}.")
    values = [inputs.labels.new_empty(len(inputs.labels), dtype=torch.float64) for _ in scores]
    num_labels = inputs.ref_labels.sum(dim=1, dtype=torch.float64)
    for queries in _query_slices(inputs):
        results = _retrieve(inputs, queries, similarity, relevance_threshold, k, num_labels)
        for value, score in zip(values, scores, strict=True):
            value[queries] = score(results)
    return values


def _query_slices(inputs: RetrievalInputs) -> Iterator[slice]:
    size = max(1, MAX_PAIRS // max(1, len(inputs.ref_labels)))
    for start in range(0, len(inputs.labels), size):
        yield slice(start, min(start + size, len(inputs.labels)))


def _retrieve(
    inputs: RetrievalInputs,
    queries: slice,
    similarity: SimilarityFunction,
    relevance_threshold: float | None,
    k: int,
    num_labels: Tensor,
) -> RetrievalResults:
    ref_labels = inputs.ref_labels
    queried, database = widen_integers(inputs.labels[queries]), widen_integers(ref_labels)
    with torch.no_grad():  # a similarity may have trainable parameters
        grades = torch.as_tensor(similarity(queried, database)).to(ref_labels.device)
    shape = (queries.stop - queries.start, len(ref_labels))
    if grades.shape != shape:
        raise ValueError(
            f"`similarity` must return shape {shape}, one grade for each query and row, got {tuple(grades.shape)}."
        )
    if bool(grades.isnan().any()):
        raise ValueError("`similarity` must return numbers, got NaN.")
    relevant = grades > 0 if relevance_threshold is None else reaches(grades, relevance_threshold)
    # A copy, because the diagonal is overwritten and `similarity` may keep a reference to its result.
    grades = grades.to(torch.float64, copy=True)
    counts = inputs.counts
    total_labels = (num_labels if counts is None else num_labels * counts).sum().expand(shape[0])
    if inputs.exclude_self:
        grades[:, queries].fill_diagonal_(-torch.inf)
        relevant[:, queries].fill_diagonal_(False)
        total_labels = total_labels - num_labels[queries]
    ranked = inputs.ranking.top(queries, k)
    return RetrievalResults(ranked, grades, relevant, num_labels, total_labels / inputs.database_size, counts)
