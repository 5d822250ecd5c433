"""A table of metrics that prints well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

METRIC_NAMES = {
    "map": "mAP",
    "micro_ap": "micro AP",
    "op": "OP (micro precision)",
    "or": "OR (micro recall)",
    "of1": "OF1 (micro F1)",
    "cp": "CP (macro precision)",
    "cr": "CR (macro recall)",
    "cf1": "CF1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "example_f1": "example F1",
    "pooled_accuracy": "pooled accuracy",
    "subset_accuracy": "subset accuracy",
    "coverage_error": "coverage error",
    "lrap": "label-ranking AP",
    "ranking_loss": "ranking loss",
    "one_error": "one-error",
}
"""What the keys of `MultiLabelMetrics` are called in tables."""

_RETRIEVAL_NAMES = {
    "ndcg": "NDCG",
    "acg": "ACG",
    "size_ratio": "size ratio",
    "hit_rate": "hit rate",
    "wmap": "WMAP",
    "map": "mAP",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "mrr": "MRR",
}


@dataclass(frozen=True)
class MetricsReport:
    """Metrics of rows, as `MultiLabelMetrics.report` measures them; `str` gives a Markdown table.

    Attributes:
        values: Each metric.
        averaged: For each metric that is a mean over labels or rows: over how many, and of how many. A label that is
            never predicted has no precision, one without positives no recall, a row without labels no ranking.
        intervals: Low and high bound of each metric, or None.
        confidence_level: Of the intervals.
        per_label: `support`, `average_precision`, `precision`, `recall` and `f1` of each label; NaN where undefined.
        label_names: Names of the labels, or None for their numbers.
    """

    values: Mapping[str, float]
    averaged: Mapping[str, tuple[int, int]]
    intervals: Mapping[str, tuple[float, float]] | None
    confidence_level: float | None
    per_label: Mapping[str, Sequence[float]]
    label_names: Sequence[str] | None = None

    def __str__(self) -> str:
        heads = ["metric", "value", "mean over"]
        if self.intervals is not None and self.confidence_level is not None:
            heads.insert(2, f"{100 * self.confidence_level:g} % interval")
        rows = []
        for key, value in self.values.items():
            cells = [_display_name(key), _number(value)]
            if self.intervals is not None:
                low, high = self.intervals[key]
                cells.append("" if math.isnan(low) else f"{_number(low)} to {_number(high)}")
            part, whole = self.averaged.get(key, (0, 0))
            cells.append(f"{part} of {whole}" if whole else "")
            rows.append(cells)
        return _markdown(heads, rows)

    def label_table(self) -> str:
        """Lay out what each label is worth, those with most positives first, as a Markdown table."""
        columns = list(self.per_label)
        order = sorted(range(len(self.per_label["support"])), key=lambda i: (-self.per_label["support"][i], i))
        rows = []
        for label in order:
            name = str(label) if self.label_names is None else self.label_names[label].replace("|", r"\|")
            cells = (self.per_label[column][label] for column in columns)
            rows.append(
                [
                    name,
                    *(
                        f"{c:.0f}" if column == "support" else _number(c)
                        for column, c in zip(columns, cells, strict=True)
                    ),
                ]
            )
        return _markdown(["label", *(column.replace("_", " ") for column in columns)], rows)


def _display_name(key: str) -> str:
    """Return the name of a metric in tables, such as "NDCG@10" for `ndcg_at_10`."""
    name, _, k = key.rpartition("_at_")
    if k.isdigit():
        return f"{_RETRIEVAL_NAMES.get(name, name)}@{k}"
    return METRIC_NAMES.get(key) or _RETRIEVAL_NAMES.get(key, key)


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay cells out as a Markdown table that reads well as text too; the first column is of text."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [list(heads), *cells]) for i in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return f"| {' | '.join([first, *rest])} |"

    return "\n".join([line(heads), line(rule), *map(line, cells)])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
