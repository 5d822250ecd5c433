"""Report of metrics with Markdown tables."""

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
"""Names of the keys of `MultiLabelMetrics` in tables."""

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
    """Values of metrics with confidence intervals; `str(report)` is a Markdown table.

    Attributes:
        values: Value of each metric.
        num_averaged: For each metric that is a mean over labels or rows, the number of labels or rows that are included
            in the mean, and their total number. Undefined values are excluded: the precision of labels that are never
            predicted, the recall of labels without positives, the ranking of rows without labels.
        intervals: Lower and upper bound for each metric, or None.
        confidence_level: Nominal coverage of the intervals, or None.
        per_label: For each label, in lists of length L: `support`, `average_precision`, `precision`, `recall` and `f1`,
            NaN where undefined. Empty for retrieval.
        label_names: Names of the labels, or None for their indices.
        show_per_label: Whether `str(report)` includes the table of labels.
    """

    values: Mapping[str, float]
    num_averaged: Mapping[str, tuple[int, int]]
    intervals: Mapping[str, tuple[float, float]] | None
    confidence_level: float | None
    per_label: Mapping[str, Sequence[float]]
    label_names: Sequence[str] | None = None
    show_per_label: bool = False

    def __str__(self) -> str:
        return f"{self._metric_table()}\n\n{self.label_table()}" if self.show_per_label else self._metric_table()

    def label_table(self) -> str:
        """Return a Markdown table with a row for each label, in order of decreasing number of positives.

        Returns:
            The columns of `per_label`, with an empty cell where a value is undefined.

        Raises:
            ValueError: If `per_label` is empty, as it is for retrieval.
        """
        if not self.per_label:
            raise ValueError("`label_table` requires metrics of labels, got a report without any.")
        columns = list(self.per_label)
        supports = self.per_label["support"]
        rows = []
        for label in sorted(range(len(supports)), key=lambda index: (-supports[index], index)):
            name = str(label) if self.label_names is None else self.label_names[label].replace("|", r"\|")
            cells = [format_value(self.per_label[column][label], integer=column == "support") for column in columns]
            rows.append([name, *cells])
        return markdown_table(["label", *(column.replace("_", " ") for column in columns)], rows)

    def _metric_table(self) -> str:
        header = ["metric", "value", "mean over"]
        if self.intervals is not None and self.confidence_level is not None:
            header.insert(2, f"{100 * self.confidence_level:g} % interval")
        rows = []
        for key, value in self.values.items():
            cells = [display_name(key), format_value(value)]
            if self.intervals is not None:
                low, high = self.intervals[key]
                cells.append("" if math.isnan(low) else f"{format_value(low)} to {format_value(high)}")
            included, total = self.num_averaged.get(key, (0, 0))
            cells.append(f"{included} of {total}" if total else "")
            rows.append(cells)
        return markdown_table(header, rows)


def display_name(key: str) -> str:
    """Return the name of a metric in tables, such as "NDCG@10" for `ndcg_at_10`."""
    name, _, k = key.rpartition("_at_")
    if k.isdigit():
        return f"{_RETRIEVAL_NAMES.get(name, name)}@{k}"
    return METRIC_NAMES.get(key) or _RETRIEVAL_NAMES.get(key, key)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns, the first one left-aligned."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(row: Sequence[str]) -> str:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return f"| {' | '.join([first, *rest])} |"

    return "\n".join([line(header), line(rule), *map(line, cells)])


def format_value(value: float, *, integer: bool = False) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if integer else f"{value:.3f}"
