"""The scores of each query that `RetrievalMetrics` computes, and the report of their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from mlmetric.metrics._bootstrap import bootstrap_intervals
from mlmetric.metrics._metrics_report import MetricsReport
from mlmetric.metrics._retrieval import _query_scores as scores
from mlmetric.metrics._retrieval._evaluation import Score, score_queries
from mlmetric.metrics._retrieval._retrieval_inputs import RetrievalInputs
from mlmetric.metrics._zero_division import mean_of_defined
from mlmetric.similarity import SimilarityFunction

ScoreAtK = Callable[[scores.RetrievalResults, int], Tensor]
AT_K: dict[str, ScoreAtK] = {
    "ndcg": partial(scores.ndcg, gain="linear"),
    "acg": scores.mean_grade,
    "size_ratio": scores.size_ratio,
    "precision": scores.precision,
    "recall": scores.recall,
    "hit_rate": scores.hit_rate,
    "wmap": scores.weighted_average_precision,
    "map": partial(scores.average_precision, denominator="min"),
}
FULL_RANKING: dict[str, ScoreAtK] = {
    "map": partial(scores.average_precision, denominator="relevant"),
    "map_at_r": scores.average_precision_at_r,
    "r_precision": scores.r_precision,
    "mrr": scores.reciprocal_rank,
}
COUNT = "queries_without_relevant"


def score_table(
    inputs: RetrievalInputs,
    ks: Sequence[int],
    similarity: SimilarityFunction,
    relevance_threshold: float | None,
    *,
    full_ranking: bool,
) -> dict[str, Tensor]:
    """Compute each metric for each query: float64 `(N,)` each, NaN where undefined; 0 or 1 for `COUNT`."""
    functions: dict[str, Score] = {
        f"{name}_at_{k}": _at(inputs.clip_k(k), score) for k in ks for name, score in AT_K.items()
    }
    depth = inputs.clip_k(max(ks))
    if full_ranking:
        depth = inputs.clip_k(None)
        functions |= {name: _at(depth, score) for name, score in FULL_RANKING.items()}
    functions[COUNT] = scores.has_no_relevant
    values = score_queries(inputs, list(functions.values()), similarity, relevance_threshold, depth)
    return dict(zip(functions, values, strict=True))


def report_scores(
    query_values: dict[str, Tensor],
    zero_division: float,
    *,
    confidence_level: float | None,
    n_resamples: int,
    generator: torch.Generator | None,
    synced: bool,
) -> MetricsReport:
    """Return the means of the values of `score_table`, with confidence intervals over the queries."""
    num_undefined = query_values.pop(COUNT)
    values = {key: mean_of_defined(each, zero_division) for key, each in query_values.items()}
    intervals = None
    if confidence_level is not None:

        def resample(weights: Tensor) -> dict[str, Tensor]:
            return {
                key: mean_of_defined(each, zero_division, weight=weights.to(each.device))
                for key, each in query_values.items()
            }

        intervals = bootstrap_intervals(
            values,
            resample,
            len(num_undefined),
            confidence_level=confidence_level,
            n_resamples=n_resamples,
            generator=generator,
            synced=synced,
        )
    num_averaged = {
        key: (int((~each.isnan()).sum()) if math.isnan(zero_division) else len(each), len(each))
        for key, each in query_values.items()
    }
    return MetricsReport(
        values={key: float(value) for key, value in values.items()},
        num_averaged=num_averaged,
        intervals=intervals,
        confidence_level=confidence_level,
        per_label={},
    )


def _at(k: int, score: ScoreAtK) -> Score:
    return lambda results: score(results, k)
