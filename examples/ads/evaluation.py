"""What a run measures of scores and embeddings, by mlmetric's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

from torch import Tensor

from mlmetric.imbalance import ir_lbl
from mlmetric.labels import label_counts
from mlmetric.metrics import (
    MultiLabelMetrics,
    average_precision,
    best_thresholds,
    confidence_interval,
    f1,
    map_at_k,
    ndcg_at_k,
    precision_at_k,
    size_ratio_at_k,
)

Measures = dict[str, float]
Intervals = dict[str, tuple[float, float]]
DECISIONS = (
    "op",
    "or",
    "of1",
    "cp",
    "cr",
    "cf1",
    "macro_f1",
    "weighted_f1",
    "example_f1",
    "pooled_accuracy",
    "subset_accuracy",
)
"""Metrics that depend on the threshold."""
CHOSEN = "_chosen"
"""Suffix of metrics at thresholds chosen on the validation part."""


@dataclass(frozen=True)
class Scored:
    """Scores of one part, shape `(N, L)`, in [0, 1], and the truth."""

    scores: Tensor
    labels: Tensor


def choose_thresholds(validation: Scored) -> Tensor:
    """Choose a threshold for each label by F1 on the validation part; a label without positives there keeps 0.5."""
    return best_thresholds(validation.scores, validation.labels, fallback=0.5)


def measure_scores(part: Scored, thresholds: Tensor, *, intervals: bool) -> tuple[Measures, Intervals]:
    """Measure one part at 0.5 and at thresholds that were chosen on validation, those with `_chosen` at the end."""
    values: Measures = {}
    bounds: Intervals = {}
    for suffix, threshold in (("", 0.5), (CHOSEN, thresholds)):
        # In the first of several processes only, which has all rows.
        metrics = MultiLabelMetrics(threshold=threshold, sync_on_compute=False)
        metrics.update(part.scores, part.labels)
        report = metrics.report(confidence_level=0.95 if intervals else None)
        for key in DECISIONS if suffix else report.values:
            if not isnan(report.values[key]):
                values[key + suffix] = report.values[key]
                if report.intervals is not None:
                    bounds[key + suffix] = report.intervals[key]
    return values, bounds


def measure_retrieval(
    queries: Tensor, query_labels: Tensor, refs: Tensor, ref_labels: Tensor
) -> tuple[Measures, Intervals]:
    """Measure what queries retrieve among the training images; grades are Jaccard similarities."""
    given, k = (queries, query_labels, refs, ref_labels), min(10, len(refs))
    functions = {
        "ndcg_at_10": partial(ndcg_at_k, k=k),
        "precision_at_10": partial(precision_at_k, k=k),
        "size_ratio_at_10": partial(size_ratio_at_k, k=k),
        "retrieval_map": partial(map_at_k, k=None),
    }
    measured = {name: confidence_interval(function, *given) for name, function in functions.items()}
    values = {name: float(interval.value) for name, interval in measured.items()}
    return values, {name: (float(interval.low), float(interval.high)) for name, interval in measured.items()}


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
