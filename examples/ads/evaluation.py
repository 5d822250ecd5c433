"""What a run measures of scores and embeddings, by mlmetric's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from torch import Tensor

from mlmetric.imbalance import ir_lbl
from mlmetric.labels import label_counts
from mlmetric.metrics import (
    average_precision,
    best_thresholds,
    cf1,
    f1,
    mean_average_precision,
    ndcg_at_k,
    pooled_accuracy,
    precision_at_k,
    subset_accuracy,
)

Measures = dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Scores of one part, shape `(N, L)`, in [0, 1], and the truth."""

    scores: Tensor
    labels: Tensor


def choose_thresholds(validation: Scored) -> Tensor:
    """Choose a threshold for each label by F1 on the validation part; a label without positives there keeps 0.5."""
    return best_thresholds(validation.scores, validation.labels, fallback=0.5)


def measure_scores(part: Scored, thresholds: Tensor) -> Measures:
    """Measure one part at 0.5 and at thresholds that were chosen on validation."""
    measures = {"map": float(mean_average_precision(part.scores, part.labels))}
    for suffix, threshold in (("", 0.5), ("_chosen", thresholds)):
        measures |= {
            f"macro_f1{suffix}": float(
                f1(part.scores, part.labels, average="macro", threshold=threshold, empty="zero")
            ),
            f"overall_f1{suffix}": float(f1(part.scores, part.labels, average="micro", threshold=threshold)),
            f"cf1{suffix}": float(cf1(part.scores, part.labels, threshold=threshold, empty="zero")),
            f"pooled_accuracy{suffix}": float(pooled_accuracy(part.scores, part.labels, threshold=threshold)),
            f"subset_accuracy{suffix}": float(subset_accuracy(part.scores, part.labels, threshold=threshold)),
        }
    return measures


def measure_retrieval(queries: Tensor, query_labels: Tensor, refs: Tensor, ref_labels: Tensor) -> Measures:
    """Measure what queries retrieve among the training images: NDCG@10 with Jaccard gain, and precision@10."""
    given = (queries, query_labels, refs, ref_labels)
    k = min(10, len(refs))
    return {"ndcg_at_10": float(ndcg_at_k(*given, k=k)), "precision_at_10": float(precision_at_k(*given, k=k))}


def measure_labels(part: Scored, thresholds: Tensor, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Measure each label: positives, average precision (None without positives), and F1 at its chosen threshold."""
    columns = {
        "support": part.labels.sum(0),
        "average_precision": average_precision(part.scores, part.labels),
        "f1_chosen": f1(part.scores, part.labels, threshold=thresholds, average="none"),
        "threshold": thresholds,
    }
    return {
        name: {column: None if values[i].isnan() else float(values[i]) for column, values in columns.items()}
        for i, name in enumerate(names)
    }


def measure_counts(before: Tensor, after: Tensor, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Count each label of the training part before and after undersampling; a label that is absent has no ratio."""
    columns = {
        "count_before": label_counts(before),
        "count_after": label_counts(after),
        "ir_before": ir_lbl(before),
        "ir_after": ir_lbl(after),
    }
    return {
        name: {column: None if isnan(values[i]) else float(values[i]) for column, values in columns.items()}
        for i, name in enumerate(names)
    }
