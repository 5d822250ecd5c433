"""All metrics of a set of predictions, with shared intermediate results."""

from __future__ import annotations

import math
from functools import cached_property

from torch import Tensor

from mlmetric.metrics._average_precision import label_precisions, pooled_precision
from mlmetric.metrics._confusion_counts import LabelCounts, RowCounts, count_labels, count_rows
from mlmetric.metrics._example_based import exact_matches, pooled_ratio, row_f1
from mlmetric.metrics._inputs import Predictions, TensorLike, decide
from mlmetric.metrics._label_based import average_ratio, harmonic_mean
from mlmetric.metrics._label_ranking import label_rankings, top_label_errors
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

ROW_METRICS = ("example_f1", "subset_accuracy", "coverage_error", "lrap", "ranking_loss", "one_error")


class MetricSummary:
    """All metrics of predictions, also for resamples of their rows."""

    def __init__(self, predictions: Predictions, threshold: float | TensorLike | None, top_k: int | None) -> None:
        self.predictions = predictions
        self._predicted = decide(predictions, threshold, top_k)

    def values(self, zero_division: float, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Return all metrics: float64, 0-d, or `(B,)` for the weights of B resamples, float64 `(B, N)`."""
        predictions = self.predictions._replace(weight=weight)
        counts = self._label_counts if weight is None else count_labels(predictions, self._predicted)
        true_positives, predicted_positives, support = counts
        precisions = self._label_precisions if weight is None else label_precisions(predictions)
        rows = self._row_counts
        denominator = predicted_positives + support
        values = {
            "map": mean_of_defined(precisions, zero_division),
            "micro_ap": fill_undefined(pooled_precision(predictions), zero_division),
            "op": average_ratio(true_positives, predicted_positives, support, "micro", zero_division),
            "or": average_ratio(true_positives, support, support, "micro", zero_division),
            "of1": average_ratio(2 * true_positives, denominator, support, "micro", zero_division),
            "cp": average_ratio(true_positives, predicted_positives, support, "macro", zero_division),
            "cr": average_ratio(true_positives, support, support, "macro", zero_division),
        }
        values["cf1"] = harmonic_mean(values["cp"], values["cr"])
        values["macro_f1"] = average_ratio(2 * true_positives, denominator, support, "macro", zero_division)
        values["weighted_f1"] = average_ratio(2 * true_positives, denominator, support, "weighted", zero_division)
        values["pooled_accuracy"] = fill_undefined(pooled_ratio(rows.correct, rows.entries, weight), zero_division)
        for name in ROW_METRICS:
            values[name] = mean_of_defined(self._row_values[name], zero_division, weight=weight)
        return values

    def num_averaged(self, zero_division: float) -> dict[str, tuple[int, int]]:
        """Return for each mean the number of labels or rows that are included, and their total number."""
        true_positives, predicted_positives, support = self._label_counts
        values = {
            "map": self._label_precisions,
            "cp": true_positives / predicted_positives,
            "cr": true_positives / support,
            "macro_f1": true_positives / (predicted_positives + support),
            **self._row_values,
        }
        return {
            name: (len(each) if not math.isnan(zero_division) else int((~each.isnan()).sum()), len(each))
            for name, each in values.items()
        }

    def per_label(self) -> dict[str, Tensor]:
        """Return the metrics of each label: float64 `(L,)` each, NaN where undefined."""
        true_positives, predicted_positives, support = self._label_counts
        return {
            "support": support,
            "average_precision": self._label_precisions,
            "precision": true_positives / predicted_positives,
            "recall": true_positives / support,
            "f1": 2 * true_positives / (predicted_positives + support),
        }

    @cached_property
    def _label_counts(self) -> LabelCounts:
        return count_labels(self.predictions, self._predicted)

    @cached_property
    def _row_counts(self) -> RowCounts:
        return count_rows(self.predictions, self._predicted)

    @cached_property
    def _label_precisions(self) -> Tensor:
        return label_precisions(self.predictions)

    @cached_property
    def _row_values(self) -> dict[str, Tensor]:
        coverage, precision, loss = label_rankings(self.predictions)
        rows = self._row_counts
        values = (row_f1(rows), exact_matches(rows), coverage, precision, loss, top_label_errors(self.predictions))
        return dict(zip(ROW_METRICS, values, strict=True))
