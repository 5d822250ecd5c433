"""All that is measured of scores and truth, each part computed once."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from mlmetric.metrics._agreement import exact_matches, pooled, row_f1
from mlmetric.metrics._checks import TensorLike
from mlmetric.metrics._counting import LabelCounts, RowCounts, count_labels, count_rows
from mlmetric.metrics._decisions import averaged, harmonic_mean
from mlmetric.metrics._label_ranking import rank_rows, top_errors
from mlmetric.metrics._ranking import label_precisions, pooled_precision
from mlmetric.metrics._scored import Scored, decide
from mlmetric.metrics._undefined import Empty, settle, settled_mean

ROWS = ("example_f1", "subset_accuracy", "coverage_error", "lrap", "ranking_loss", "one_error")


class Measured:
    """Metrics of rows, and of other weightings of the same rows."""

    def __init__(self, scored: Scored, threshold: float | TensorLike | None, top_k: int | None) -> None:
        self.scored = scored
        self._decided = decide(scored, threshold, top_k)

    def summary(self, empty: Empty, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Return each metric: float64, 0-d, or `(B,)` where `weight` has B weightings, float64 `(B, N)`."""
        scored = self.scored._replace(weight=weight)
        hits, predicted, support = self._counts if weight is None else count_labels(scored, self._decided)
        precisions = self._label_precisions if weight is None else label_precisions(scored)
        rows = self._row_counts
        right = pooled(rows.right, rows.entries, weight)
        values = {
            "map": settled_mean(precisions, empty, "map"),
            "micro_ap": settle(pooled_precision(scored), empty, "micro_ap"),
            "op": averaged(hits, predicted, support, "micro", empty, "op"),
            "or": averaged(hits, support, support, "micro", empty, "or"),
            "of1": averaged(2 * hits, predicted + support, support, "micro", empty, "of1"),
            "cp": averaged(hits, predicted, support, "macro", empty, "cp"),
            "cr": averaged(hits, support, support, "macro", empty, "cr"),
        }
        values["cf1"] = harmonic_mean(values["cp"], values["cr"])
        values["macro_f1"] = averaged(2 * hits, predicted + support, support, "macro", empty, "macro_f1")
        values["weighted_f1"] = averaged(2 * hits, predicted + support, support, "weighted", empty, "weighted_f1")
        values["pooled_accuracy"] = settle(right, empty, "pooled_accuracy")
        for name in ROWS:
            values[name] = settled_mean(self._row_values[name], empty, name, unit="row", weight=weight)
        return values

    def averaged(self, empty: Empty) -> dict[str, tuple[int, int]]:
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
            name: (len(values) if empty in ("zero", "one") else int((~values.isnan()).sum()), len(values))
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
        return count_labels(self.scored, self._decided)

    @cached_property
    def _row_counts(self) -> RowCounts:
        return count_rows(self.scored, self._decided)

    @cached_property
    def _label_precisions(self) -> Tensor:
        return label_precisions(self.scored)

    @cached_property
    def _row_values(self) -> dict[str, Tensor]:
        coverage, precision, loss = rank_rows(self.scored)
        rows = self._row_counts
        values = (row_f1(rows), exact_matches(rows), coverage, precision, loss, top_errors(self.scored))
        return dict(zip(ROWS, values, strict=True))
