"""The report of a run: the comparison table, beside what the paper states, and the figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ads.evaluation import DECISIONS
from mlmetric.metrics import METRIC_NAMES

Measures = Mapping[str, float]

COLUMNS = {
    "map": "mAP",
    "macro_f1": "macro F1",
    "of1": "overall F1",
    "pooled_accuracy": "pooled acc.",
    "macro_f1_chosen": "macro F1*",
    "of1_chosen": "overall F1*",
    "ndcg_at_10": "NDCG@10",
    "precision_at_10": "P@10",
}
"""What methods are compared by; a run's own report has every metric."""
COMPARED = {key: COLUMNS[key] for key in ("map", "macro_f1_chosen", "of1_chosen", "ndcg_at_10", "precision_at_10")}
"""What the figure of a comparison shows."""
RETRIEVAL = {
    "ndcg_at_10": "NDCG@10",
    "precision_at_10": "P@10",
    "retrieval_map": "mAP of retrieval",
    "size_ratio_at_10": "size ratio@10",
}
NOTE = (
    "Measured on the test part. Decisions at a probability of 0.5; with * at thresholds chosen on the validation part. "
    "NDCG@10 (Jaccard gain), P@10 and mAP of retrieval (a retrieved image shares a label): test images as queries, "
    "training images as the database; the size ratio is the labels that a retrieved image carries by those of an "
    "average one."
)
# Table of the paper and the rivals that it quotes, on the real images of Pittsburgh Ads.
PAPER = {
    "paper, run 1 (10 epochs, margin 1)": {"map": 0.271, "macro_f1": 0.179},
    "paper, run 2 (10 epochs, margin 2)": {"map": 0.273, "macro_f1": 0.176},
    "paper, run 3 (20 epochs, margin 1)": {"map": 0.252, "macro_f1": 0.175},
    "paper, run 4 (20 epochs, margin 2)": {"map": 0.257, "macro_f1": 0.177},
    "Pilli 2020, as the paper quotes it": {"map": 0.233, "of1": 0.399},
    "GCN 2019, as the paper quotes it": {"map": 0.332, "of1": 0.470},
}
FIGURES = {
    "label_counts.png": "Label counts before and after undersampling (paper, figure 2)",
    "embedding_loss.png": "Loss of stage one by epoch (paper, figure 5, for its triplet loss)",
    "bce.png": "Loss of the classifier by epoch (paper, figure 6, binary cross entropy)",
    "f1.png": "Macro F1 by epoch (paper, figure 7)",
    "map.png": "mAP by epoch (paper, figure 8)",
    "cooccurrence.png": "Label co-occurrence",
    "ap_by_support.png": "Average precision of each label by its support",
    "embedding.png": "The embedding in two dimensions",
    "retrieval.png": "Test images and their nearest training images",
}


INTERVAL_NOTE = (
    "Intervals by the bootstrap over test images: how much the choice of test images matters, not how much another "
    "training would. Empty where nothing is defined."
)


def table(rows: Mapping[str, Measures], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Lay measures out as a Markdown table, a row for each method, that reads well as text too."""
    cells = (
        [name, *(f"{measures[column]:.3f}" if column in measures else "" for column in columns)]
        for name, measures in rows.items()
    )
    return _markdown(["method", *(COLUMNS[column] for column in columns)], cells)


def interval_table(rows: Mapping[str, Measures], intervals: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Lay every measure out with its interval, a column for each method."""
    names = METRIC_NAMES | {f"{key}_chosen": f"{METRIC_NAMES[key]}*" for key in DECISIONS} | RETRIEVAL

    def cell(method: str, key: str) -> str:
        if key not in rows[method]:
            return ""
        low, high = intervals[method][key]
        return f"{rows[method][key]:.3f} ({low:.3f} to {high:.3f})"

    return _markdown(
        ["metric", *rows], ([name, *(cell(method, key) for method in rows)] for key, name in names.items())
    )


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [list(heads), *cells]) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return f"| {' | '.join([row[0].ljust(widths[0]), *rest])} |"

    return "\n".join(map(line, [heads, ["-" * width for width in widths], *cells]))


def comparison_rows(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measures]:
    """Take the test measures of the method of each run; of the baselines beside them those that differ."""
    titles = [metrics["title"] for metrics in runs.values()]
    rows: dict[str, Measures] = {}
    for name, metrics in runs.items():
        for method, measures in metrics["test"].items():
            found = [other["test"][method] for other in runs.values() if method in other["test"]]
            if method in titles:
                if metrics["title"] == method:
                    rows[method if titles.count(method) == 1 else f"{name}: {method}"] = measures
                elif found.count(measures) == 1:  # a baseline with the settings of another method
                    rows[f"{name}: {method}"] = measures
            elif measures not in rows.values():
                rows[method if found.count(measures) == len(found) else f"{name}: {method}"] = measures
    return rows


def comparison_report(title: str, runs: Mapping[str, Mapping[str, Any]], *, with_paper: bool) -> str:
    """Write the report of several runs on one set: one table, beside what the paper states.

    Args:
        title: Its heading.
        runs: For each run the content of its `metrics.json`.
        with_paper: Whether the paper's table stands beside it.

    Returns:
        Markdown.
    """
    caveats = dict.fromkeys(caveat for metrics in runs.values() for caveat in metrics["caveats"])
    parts = [f"# {title}", *_quoted(caveats), table(comparison_rows(runs)), NOTE]
    parts += ["![The methods on the test images](comparison.png)", *(_paper() if with_paper else [])]
    return "\n\n".join(parts) + "\n"


def run_report(title: str, metrics: Mapping[str, Any], *, figures: Collection[str], with_paper: bool) -> str:
    """Write the report of one run.

    Args:
        title: Its heading.
        metrics: The content of `metrics.json`.
        figures: The files that were drawn.
        with_paper: Whether the paper's table stands beside the run's.

    Returns:
        Markdown.
    """
    data, seconds = metrics["data"], metrics["seconds"]
    parts = [f"# {title}", *_quoted(metrics["caveats"]), "## Results", table(metrics["test"]), NOTE]
    parts += ["## Every metric, with 95 % intervals (test)", interval_table(metrics["test"], metrics["test_intervals"])]
    parts += [INTERVAL_NOTE]
    parts += _paper() if with_paper else []
    parts += [
        "## Data",
        f"{data['images']} images ({data['train']} / {data['validation']} / {data['test']} for training, validation "
        f"and test), {data['labels']} labels, {data['cardinality']:.2f} labels an image. Training part before "
        f"undersampling (`{data['undersampler']}`): MeanIR {data['mean_ir_before']:.2f}, SCUMBLE "
        f"{data['scumble_before']:.3f}; after: {data['train_after']} images, MeanIR {data['mean_ir_after']:.2f}.",
        _count_table(metrics["train_labels"]),
        "## Each label (test)",
        _label_table(metrics["test_labels"]),
        "## Time",
        "| step | seconds |\n| --- | ---: |\n"
        + "\n".join(f"| {step} | {value:.1f} |" for step, value in seconds.items()),
        f"Of the last start, if the run was resumed. Peak memory of the process: {metrics['peak_memory_mb']:.0f} MB.",
        "## Figures",
    ]
    drawn = {name: caption for name, caption in FIGURES.items() if name in figures}
    parts += [f"### {caption}\n\n![{caption}](figures/{name})" for name, caption in drawn.items()]
    return "\n\n".join(parts) + "\n"


def _quoted(caveats: Iterable[str]) -> list[str]:
    return [f"> **{caveat}**" for caveat in caveats]


def _paper() -> list[str]:
    return ["### What the paper states, on the real images", table(PAPER, ("map", "macro_f1", "of1"))]


def _count_table(labels: Mapping[str, Mapping[str, float | None]]) -> str:
    lines = [
        "| label (training part) | before | after | IRLbl before | after |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in sorted(labels.items(), key=lambda item: -(item[1]["count_before"] or 0)):
        ratios = ("" if row[column] is None else f"{row[column]:.2f}" for column in ("ir_before", "ir_after"))
        lines.append(f"| {name} | {row['count_before']:g} | {row['count_after']:g} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def _label_table(labels: Mapping[str, Mapping[str, float | None]]) -> str:
    lines = ["| label | positives | average precision | F1* |", "| --- | ---: | ---: | ---: |"]
    for name, row in sorted(labels.items(), key=lambda item: -(item[1]["support"] or 0)):
        values = ("" if row[column] is None else f"{row[column]:.3f}" for column in ("average_precision", "f1_chosen"))
        lines.append(f"| {name} | {row['support']:.0f} | {' | '.join(values)} |")
    return "\n".join(lines)
