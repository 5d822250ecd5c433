"""Metrics of scores and embeddings, and the comparison of methods with the label frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

import torch
from torch import Tensor

from mlmetric.imbalance import ir_lbl
from mlmetric.labels import label_counts
from mlmetric.metrics import (
    METRIC_NAMES,
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
THRESHOLD_METRICS = (
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
"""Suffix of metrics at thresholds that are chosen on the validation part."""
LABEL_FREQUENCIES = "label frequencies"
"""The baseline that predicts for every image the frequency of each label in the training part."""
_NOT_COMPARED = {"op", "or", "cp", "cr"}  # precision or recall alone: each can be raised at the expense of the other


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities of one part, shape `(N, L)`, and its labels, shape `(N, L)`."""

    scores: Tensor
    labels: Tensor


def choose_thresholds(validation: Predictions) -> Tensor:
    """Choose the threshold of each label by F1 on the validation part; a label without positives there gets 0.5."""
    return best_thresholds(validation.scores, validation.labels, fallback=0.5)


def measure_scores(part: Predictions, thresholds: Tensor, *, seed: int | None = None) -> tuple[Measures, Intervals]:
    """Compute every metric of scores, at a threshold of 0.5 and at the given thresholds.

    Args:
        part: Probabilities and labels.
        thresholds: A threshold for each label; the names of metrics at these end in `_chosen`.
        seed: Seed of the bootstrap for 95 % intervals, so that all methods get the same resamples; None for no
            intervals.

    Returns:
        The metrics that are defined, and their intervals.
    """
    values: Measures = {}
    bounds: Intervals = {}
    for suffix, threshold in (("", 0.5), (CHOSEN, thresholds)):
        metrics = MultiLabelMetrics(threshold=threshold, sync_on_compute=False)  # called in the first process only
        metrics.update(part.scores, part.labels)
        if seed is None:
            report = metrics.report(confidence_level=None)
        else:
            report = metrics.report(generator=torch.Generator().manual_seed(seed))
        for key in THRESHOLD_METRICS if suffix else report.values:
            if not isnan(report.values[key]):
                values[key + suffix] = report.values[key]
                if report.intervals is not None:
                    bounds[key + suffix] = report.intervals[key]
    return values, bounds


def measure_retrieval(
    embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor, *, seed: int
) -> tuple[Measures, Intervals]:
    """Compute the metrics of retrieval among the training images; gains are Jaccard similarities.

    Args:
        embeddings: Queries, shape `(N, E)`.
        labels: Their labels, shape `(N, L)`.
        ref_emb: The database, shape `(M, E)`.
        ref_labels: Its labels, shape `(M, L)`.
        seed: Seed of the bootstrap for 95 % intervals.

    Returns:
        The metrics and their intervals.
    """
    arguments = (embeddings, labels, ref_emb, ref_labels)
    functions = {
        "ndcg_at_10": partial(ndcg_at_k, k=10),
        "precision_at_10": partial(precision_at_k, k=10),
        "size_ratio_at_10": partial(size_ratio_at_k, k=10),
        "retrieval_map": partial(map_at_k, k=None),
    }
    measured = {
        name: confidence_interval(function, *arguments, generator=torch.Generator().manual_seed(seed))
        for name, function in functions.items()
    }
    values = {name: float(interval.value) for name, interval in measured.items()}
    return values, {name: (float(interval.low), float(interval.high)) for name, interval in measured.items()}


def measure_labels(part: Predictions, thresholds: Tensor, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Compute the metrics of each label: support, average precision (None without positives), F1 and its threshold."""
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
    """Count the training images of each label before and after undersampling; the ratio of an absent label is None."""
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


def below_frequencies(measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """State for each method the metrics, rounded to three decimals, in which it is below the label frequencies.

    Args:
        measures: The metrics of each method on one part; the label frequencies are one of the methods.

    Returns:
        A sentence for each method that is below them in at least one metric.
    """
    baseline = measures[LABEL_FREQUENCIES]
    chosen = {f"{key}{CHOSEN}": f"{METRIC_NAMES[key]}*" for key in THRESHOLD_METRICS if key not in _NOT_COMPARED}
    names = {key: name for key, name in METRIC_NAMES.items() if key not in _NOT_COMPARED} | chosen
    sentences = []
    for method, values in measures.items():
        worse = [
            f"{name} ({values[key]:.3f} against {baseline[key]:.3f})"
            for key, name in names.items()
            if key in values and key in baseline and _is_worse(key, values[key], baseline[key])
        ]
        if worse:
            sentences.append(
                f"{method[:1].upper()}{method[1:]}: its classifier is below the {LABEL_FREQUENCIES} of the training "
                f"part, the same prediction for every image, in {', '.join(worse)}."
            )
    return sentences


def _is_worse(key: str, value: float, baseline: float) -> bool:
    value, baseline = round(value, 3), round(baseline, 3)
    lower_is_better = key.endswith(("_loss", "_error"))
    return value > baseline if lower_is_better else value < baseline
