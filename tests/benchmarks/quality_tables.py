"""Tables of the results of `quality.py`, and the ranks of our recipes among the other methods."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

from quality_methods import FORMER, OTHERS, PAPER

MEASURES = {
    "ndcg": "NDCG@10",
    "size": "size ratio",
    "knn": "kNN mAP",
    "map": "mAP",
    "macro_f1": "macro F1",
    "overall_f1": "overall F1",
}
RANK_HEADS = ["method", "metric", "mean", "rank", "lead", "best other method", "mean of the other", "remark"]
RANKED = ("ndcg", "knn", "map", "macro_f1", "overall_f1")
SIZE_RATIOS = (0.95, 1.1)

Runs = Mapping[str, list[dict[str, float]]]


def deviation(values: list[float]) -> float:
    """Return the standard deviation, or 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cell(values: list[float]) -> str:
    """Format the mean and the standard deviation."""
    return f"{statistics.fmean(values):.3f} ({deviation(values):.3f})"


def result_rows(runs: Runs) -> Iterator[list[str]]:
    """Yield the row of each method of the table of one set."""
    for name, rows in runs.items():
        cells = [cell([row[measured] for row in rows]) for measured in MEASURES]
        yield [name, *cells, f"{statistics.fmean(row['seconds'] for row in rows):.1f}"]


def rank_rows(runs: Runs, ours: str) -> Iterator[list[str]]:
    """Yield the rank of one of our recipes among the other methods for each metric."""
    low, high = SIZE_RATIOS
    others = [name for name in (*OTHERS, PAPER, FORMER) if name in runs]
    means = {name: {key: statistics.fmean(row[key] for row in rows) for key in MEASURES} for name, rows in runs.items()}
    for measured in RANKED:
        spread = {name: deviation([row[measured] for row in runs[name]]) for name in (ours, *others)}
        leads = {name: means[ours][measured] - means[name][measured] for name in others}
        spreads = {name: max(spread[ours], spread[name]) for name in others}
        best = min(leads, key=leads.__getitem__)
        if all(leads[name] > spreads[name] for name in others):
            rank = "first"
        elif any(leads[name] < -spreads[name] for name in others):
            rank = "behind"
        else:
            rank = "tied ahead" if leads[best] > 0 else "tied"
        outside = [name for name in (ours, best) if measured == "ndcg" and not low <= means[name]["size"] <= high]
        remark = f"size ratio outside {low} to {high}: {', '.join(outside)}" if outside else ""
        cells = [f"{means[ours][measured]:.3f}", rank, f"{leads[best]:+.3f}", best, f"{means[best][measured]:.3f}"]
        yield [ours, MEASURES[measured], *cells, remark]
