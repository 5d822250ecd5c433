"""All that is measured of scores and truth, each part computed once."""

from __future__ import annotations

import math
from functools import cached_property

from torch import Tensor

from mlmetric.metrics._average_precision import label_precisions, pooled_precision
from mlmetric.metrics._checks import TensorLike
from mlmetric.metrics._confusion_counts import LabelCounts, RowCounts, count_labels, count_rows
from mlmetric.metrics._example_based import exact_matches, pooled, row_f1
from mlmetric.metrics._inputs import Predictions, decide
from mlmetric.metrics._label_based import averaged, harmonic_mean
from mlmetric.metrics._label_ranking import rank_rows, top_errors
from mlmetric.metrics._zero_division import fill_undefined, mean_of_defined

ROWS = ("example_f1", "subset_accuracy", "coverage_error", "lrap", "ranking_loss", "one_error")


class MetricSummary:
    """Metrics of rows, and of other weightings of the same rows."""

    def __init__(self, predictions: Predictions, threshold: float | TensorLike | None, top_k: int | None) -> None:
        self.predictions = predictions
        self._decided = decide(predictions, threshold, top_k)

    def summary(self, zero_division: float, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Return each metric: float64, 0-d, or `(B,)` where `weight` has B weightings, float64 `(B, N)`."""
        predictions = self.predictions._replace(weight=weight)
        hits, predicted, support = self._counts if weight is None else count_labels(predictions, self._decided)
        precisions = self._label_precisions if weight is None else label_precisions(predictions)
        rows = self._row_counts
        right = pooled(rows.right, rows.entries, weight)
        values = {
            "map": mean_of_defined(precisions, zero_division),
            "micro_ap": fill_undefined(pooled_precision(predictions), zero_division),
            "op": averaged(hits, predicted, support, "micro", zero_division),
            "or": averaged(hits, support, support, "micro", zero_division),
            "of1": averaged(2 * hits, predicted + support, support, "micro", zero_division),
            "cp": averaged(hits, predicted, support, "macro", zero_division),
            "cr": averaged(hits, support, support, "macro", zero_division),
        }
        values["cf1"] = harmonic_mean(values["cp"], values["cr"])
        values["macro_f1"] = averaged(2 * hits, predicted + support, support, "macro", zero_division)
        values["weighted_f1"] = averaged(2 * hits, predicted + support, support, "weighted", zero_division)
        values["pooled_accuracy"] = fill_undefined(right, zero_division)
        for name in ROWS:
            values[name] = mean_of_defined(self._row_values[name], zero_division, weight=weight)
        return values

    def averaged(self, zero_division: float) -> dict[str, tuple[int, int]]:
        """Count for each mean the labels or rows that are in it, and all of them."""
        hits, predicted, support = self._counts
        parts = {
            "map": self._label_precisions,
            "cp": hits / predicted,
            "cr": hits / support,
            "macro_f1": hits / (predicted + support),
            **self._row_values,
        }
        return {
            name: (len(values) if not math.isnan(zero_division) else int((~values.isnan()).sum()), len(values))
            for name, values in parts.items()
        }

    def per_label(self) -> dict[str, Tensor]:
        """Return what each label is worth: float64 `(L,)` each, NaN where undefined."""
        hits, predicted, support = self._counts
        return {
            "support": support,
            "average_precision": self._label_precisions,
            "precision": hits / predicted,
            "recall": hits / support,
            "f1": 2 * hits / (predicted + support),
        }

    @cached_property
    def _counts(self) -> LabelCounts:
        return count_labels(self.predictions, self._decided)

    @cached_property
    def _row_counts(self) -> RowCounts:
        return count_rows(self.predictions, self._decided)

    @cached_property
    def _label_precisions(self) -> Tensor:
        return label_precisions(self.predictions)

    @cached_property
    def _row_values(self) -> dict[str, Tensor]:
        coverage, precision, loss = rank_rows(self.predictions)
        rows = self._row_counts
        values = (row_f1(rows), exact_matches(rows), coverage, precision, loss, top_errors(self.predictions))
        return dict(zip(ROWS, values, strict=True))
