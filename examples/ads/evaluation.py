"""Metrics of scores and embeddings, and the comparison of a method with the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, isnan

import torch
from torch import Tensor

from common.progress import progress_bar
from mlmetric.estimators import MetricClassifier
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

from .methods import MethodResult
from .metric_names import ALL_NAMES, CHOSEN, COLUMNS, LABEL_FREQUENCIES, LINEAR_PROBE, THRESHOLD_METRICS

Measures = dict[str, float]
Intervals = dict[str, tuple[float, float]]
_MAX_NAMED = 4  # metrics in a sentence
_NOT_COMPARED = {  # precision or recall alone can be raised at the expense of the other
    *("op", "or", "cp", "cr", "op_chosen", "or_chosen", "cp_chosen", "cr_chosen", "size_ratio_at_10")
}
# The metrics of the comparison come first, with their names in the comparison.
_COMPARED = {key: name for key, name in (COLUMNS | ALL_NAMES | COLUMNS).items() if key not in _NOT_COMPARED}


@dataclass(frozen=True)
class Predictions:
    """Predicted probabilities of one part, shape `(N, L)`, and its labels, shape `(N, L)`."""

    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Evaluation:
    """The metrics of methods.

    Attributes:
        measures: For the parts "validation" and "test", the metrics of each method.
        intervals: The intervals of the test metrics of each method.
        thresholds: The thresholds of each method, shape `(L,)`.
    """

    measures: dict[str, dict[str, Measures]]
    intervals: dict[str, Intervals]
    thresholds: dict[str, Tensor]


def evaluate(
    fitted: Mapping[str, MethodResult], labels: Tensor, parts: Mapping[str, Tensor], *, seed: int
) -> Evaluation:
    """Evaluate the methods and the label frequencies on the validation and test parts.

    Thresholds are chosen on the validation part; the training images are the database of retrieval.

    Args:
        fitted: The results of each method on N images.
        labels: Their labels, shape `(N, L)`.
        parts: The indices of the parts "train", "validation" and "test".
        seed: Seed of the bootstrap.

    Returns:
        The metrics.
    """
    train, test = parts["train"], parts["test"]
    frequencies = labels[train].float().mean(0).expand(len(labels), -1)
    scores = {LABEL_FREQUENCIES: frequencies} | {title: result.scores for title, result in fitted.items()}
    evaluation = Evaluation({"validation": {}, "test": {}}, {}, {})
    for title in progress_bar("evaluation", scores, unit="methods"):
        predictions = {name: Predictions(scores[title][rows], labels[rows]) for name, rows in parts.items()}
        own = fitted[title].thresholds if title in fitted else None
        thresholds = choose_thresholds(predictions["validation"]) if own is None else own
        values, bounds = measure_scores(predictions["test"], thresholds, seed=seed)
        if title in fitted:
            rows = fitted[title].embeddings
            retrieval, retrieval_bounds = measure_retrieval(
                rows[test], labels[test], rows[train], labels[train], seed=seed
            )
            values, bounds = values | retrieval, bounds | retrieval_bounds
        evaluation.measures["validation"][title], _ = measure_scores(predictions["validation"], thresholds)
        evaluation.measures["test"][title], evaluation.intervals[title] = values, bounds
        evaluation.thresholds[title] = thresholds
    return evaluation


def choose_thresholds(validation: Predictions) -> Tensor:
    """Choose a threshold for each label on the validation part, as `MetricClassifier` does by default.

    A label without positives there gets the common threshold of all labels; without any positives all get 0.5.
    """
    default = MetricClassifier()
    return best_thresholds(
        validation.scores,
        validation.labels,
        average=default.threshold,
        max_predicted=default.max_predicted,
        fallback=None if bool(validation.labels.any()) else 0.5,
    )


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
    """Compute the metrics of each label.

    Args:
        part: Probabilities and labels.
        thresholds: A threshold for each label.
        names: The names of the labels.

    Returns:
        For each label `support`, `average_precision` (None without positives), `f1_chosen` (at its threshold) and
        `threshold` (None if the label is never predicted).
    """
    columns = {
        "support": part.labels.sum(0),
        "average_precision": average_precision(part.scores, part.labels),
        "f1_chosen": f1(part.scores, part.labels, threshold=thresholds, average="none"),
        "threshold": thresholds,
    }
    return {
        name: {column: float(values[i]) if isfinite(values[i]) else None for column, values in columns.items()}
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


def behind_baselines(method: str, measures: Mapping[str, Measures]) -> str | None:
    """State in one sentence in which metrics a method is worse than the baselines, and what to use instead.

    Values are compared as they are shown, with three decimals. Precision or recall alone, and the size ratio, are not
    compared.

    Args:
        method: The title of the method, after "RUN: " if several runs have it.
        measures: The metrics of the method and of the baselines, the linear probe and the label frequencies, on one
            part; a metric is compared only if both methods have it.

    Returns:
        The sentence; None if the method is not worse in any metric.
    """
    if method == LABEL_FREQUENCIES:
        return None
    behind = {
        baseline: text
        for baseline in (LINEAR_PROBE, LABEL_FREQUENCIES)
        if baseline != method and baseline in measures and (text := _behind(measures[method], measures[baseline]))
    }
    if not behind:
        return None
    places, advice = [], []
    if LINEAR_PROBE in behind:
        places.append(f"behind the linear probe in {behind[LINEAR_PROBE]}")
        advice.append("`--method linear-probe`, ")
    if LABEL_FREQUENCIES in behind:
        places.append(f"behind the label frequencies, which ignore the image, in {behind[LABEL_FREQUENCIES]}")
        advice.append("another backbone or other weights, ")
    run, _, title = method.rpartition(": ")
    subject = f"{run}: the" if run else "The"
    name = "linear probe" if title == LINEAR_PROBE else title
    return f"{subject} {name} is {', and '.join(places)}: for these, use {''.join(advice)}or more training images."


def _behind(values: Measures, baseline: Measures) -> str:
    """Return the metrics in which a method is worse, the first of them with both values."""
    worse = [
        f"{name} ({values[key]:.3f} against {baseline[key]:.3f})"
        for key, name in _COMPARED.items()
        if key in values and key in baseline and _is_worse(key, values[key], baseline[key])
    ]
    named, others = worse[:_MAX_NAMED], len(worse) - _MAX_NAMED
    if others <= 0:
        return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return f"{', '.join(named)} and {others} other metric{'s' * (others > 1)}"


def _is_worse(key: str, value: float, baseline: float) -> bool:
    value, baseline = round(value, 3), round(baseline, 3)
    lower_is_better = key.endswith(("_loss", "_error"))
    return value > baseline if lower_is_better else value < baseline
