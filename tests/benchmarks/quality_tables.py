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
RANK_HEADS = ["method", "metric", "mean", "rank", "lead", "best other method", "mean of the other", "remarks"]
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
    means = {name: {key: statistics.fmean(row[key] for row in rows) for key in MEASURES} for name, rows in runs.items()}
    outside = {name for name in runs if not low <= means[name]["size"] <= high}
    for measured in RANKED:
        others = [name for name in (*OTHERS, PAPER, FORMER) if name in runs]
        skipped = [name for name in others if measured == "ndcg" and name in outside]
        allowed = [name for name in others if name not in skipped]
        remarks = [f"size ratio outside {low} to {high}"] if measured == "ndcg" and ours in outside else []
        remarks += [f"not compared: {', '.join(skipped)}"] if skipped else []
        cells = [ours, MEASURES[measured], f"{means[ours][measured]:.3f}"]
        if not allowed:
            yield [*cells, "no other method", "", "", "", "; ".join(remarks)]
            continue
        spread = {name: deviation([row[measured] for row in runs[name]]) for name in (ours, *allowed)}
        leads = {name: means[ours][measured] - means[name][measured] for name in allowed}
        spreads = {name: max(spread[ours], spread[name]) for name in allowed}
        best = min(leads, key=leads.__getitem__)
        if all(leads[name] > spreads[name] for name in allowed):
            verdict = "first"
        elif any(leads[name] < -spreads[name] for name in allowed):
            verdict = "behind"
        else:
            verdict = "tied ahead" if leads[best] > 0 else "tied"
        yield [*cells, verdict, f"{leads[best]:+.3f}", best, f"{means[best][measured]:.3f}", "; ".join(remarks)]
