"""Tables of the results of `quality.py`, and the ranks of our recipes among the other methods."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from quality_methods import OTHERS

MEASURES = {
    "ndcg": "NDCG@10",
    "size": "size ratio",
    "knn": "kNN mAP",
    "map": "mAP",
    "macro_f1": "macro F1",
    "overall_f1": "overall F1",
}
RANKED = ("ndcg", "knn", "map", "macro_f1", "overall_f1")
SIZE_RATIOS = (0.95, 1.1)

Runs = Mapping[str, list[dict[str, float]]]


def deviation(values: list[float]) -> float:
    """Return the standard deviation, or 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cell(values: list[float]) -> str:
    """Format the mean and the standard deviation."""
    return f"{statistics.fmean(values):.3f} ({deviation(values):.3f})"


def table(runs: Runs) -> str:
    """Format the results on one set."""
    lines = [f"| method | {' | '.join(MEASURES.values())} | seconds |", "| --- |" + " ---: |" * (len(MEASURES) + 1)]
    for name, rows in runs.items():
        cells = [cell([row[measured] for row in rows]) for measured in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(row['seconds'] for row in rows):.1f} |")
    return "\n".join(lines)


def summary(sets: Mapping[str, Runs]) -> str:
    """Format the means on all sets: NDCG@10 / size ratio / kNN mAP / mAP / macro F1 / overall F1."""
    lines = [f"| method | {' | '.join(sets)} |", "| --- |" + " --- |" * len(sets)]
    for name in next(iter(sets.values())):
        cells = [
            " / ".join(f"{statistics.fmean(row[measured] for row in runs[name]):.3f}" for measured in MEASURES)
            for runs in sets.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ranks(runs: Runs, ours: str) -> dict[str, str]:
    """Return the rank of one of our recipes among the other methods for each metric."""
    low, high = SIZE_RATIOS
    outside = {name for name, rows in runs.items() if not low <= statistics.fmean(row["size"] for row in rows) <= high}
    found = {}
    for measured in RANKED:
        values = {name: [row[measured] for row in rows] for name, rows in runs.items()}
        allowed = [name for name in OTHERS if measured != "ndcg" or name not in outside]
        if not allowed:
            found[measured] = f"{cell(values[ours])}; no other method has a size ratio of {low} to {high}"
            continue
        leads = {name: statistics.fmean(values[ours]) - statistics.fmean(values[name]) for name in allowed}
        spreads = {name: max(deviation(values[ours]), deviation(values[name])) for name in allowed}
        best = min(leads, key=leads.__getitem__)
        lead = leads[best]
        if all(leads[name] > spreads[name] for name in allowed):
            verdict = "first"
        elif any(leads[name] < -spreads[name] for name in allowed):
            verdict = "behind"
        else:
            verdict = "tied ahead" if lead > 0 else "tied"
        found[measured] = f"{verdict} by {lead:+.3f}: {cell(values[ours])}; {best} {cell(values[best])}"
        if measured == "ndcg" and ours in outside:
            found[measured] = f"size ratio outside {low} to {high}, otherwise {found[measured]}"
        if measured == "ndcg" and outside & OTHERS.keys():
            found[measured] += f"; not compared: {', '.join(name for name in OTHERS if name in outside)}"
    return found
