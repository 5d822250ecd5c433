"""The report of a run: the comparison table with notes, every metric, the data and the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ads.evaluation import CHOSEN, THRESHOLD_METRICS, below_frequencies
from ads.labelled_images import LabelledImages
from ads.plots import MAX_LABELS
from ads.synthetic import SENTIMENTS
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
"""The metrics in the comparison of methods; the report of a single run has all metrics."""
COMPARED = {key: COLUMNS[key] for key in ("map", "macro_f1_chosen", "of1_chosen", "ndcg_at_10", "precision_at_10")}
"""The metrics in the figure of a comparison."""
RETRIEVAL = {
    "ndcg_at_10": "NDCG@10",
    "precision_at_10": "P@10",
    "retrieval_map": "mAP of retrieval",
    "size_ratio_at_10": "size ratio@10",
}
_NOTES = {
    "*": "With *: at thresholds chosen on the validation part; otherwise at a probability of 0.5.",
    "@10": "A retrieved image is relevant if it shares a label with the query. Test images are the queries, training "
    "images the database.",
    "NDCG": "The gain of NDCG is the Jaccard similarity of the label sets.",
    "size ratio": "The size ratio is the mean number of labels of a retrieved image, divided by that of the database.",
}
"""Notes on the metrics whose names contain the key."""
PAPER = "From image to emotion: multi-label image classification based on triplet loss (2021)"
_PAPER_NOTE = f'"Paper" means "{PAPER}".'
# Results of the paper, and of other methods as the paper quotes them, on the images of Pittsburgh Ads.
_PAPER_TABLE = {
    "paper, run 1 (10 epochs, margin 1)": {"map": 0.271, "macro_f1": 0.179},
    "paper, run 2 (10 epochs, margin 2)": {"map": 0.273, "macro_f1": 0.176},
    "paper, run 3 (20 epochs, margin 1)": {"map": 0.252, "macro_f1": 0.175},
    "paper, run 4 (20 epochs, margin 2)": {"map": 0.257, "macro_f1": 0.177},
    "Pilli 2020, as the paper quotes it": {"map": 0.233, "of1": 0.399},
    "GCN 2019, as the paper quotes it": {"map": 0.332, "of1": 0.470},
}
_CAPTIONS = {
    "label_counts.png": "Label counts before and after undersampling",
    "embedding_loss.png": "Loss of the embedding by epoch",
    "bce.png": "Loss of the classifier by epoch (binary cross entropy)",
    "f1.png": "Macro F1 by epoch",
    "map.png": "mAP and NDCG@10 on validation images by epoch",
    "cooccurrence.png": "Label co-occurrence",
    "ap_by_support.png": "Average precision of each label by its support",
    "embedding.png": "The embedding in two dimensions",
    "retrieval.png": "Test images and their nearest training images",
}


def table(rows: Mapping[str, Measures], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Format metrics as an aligned Markdown table with a row for each method."""
    cells = (
        [name, *(f"{measures[column]:.3f}" if column in measures else "" for column in columns)]
        for name, measures in rows.items()
    )
    return _markdown(["method", *(COLUMNS[column] for column in columns)], cells)


_INTERVAL_NOTE = (
    "The intervals are bootstrap intervals over test images: they measure the variation between samples of test "
    "images, not that between training runs. Cells of undefined metrics are empty."
)


def is_pittsburgh(images: LabelledImages) -> bool:
    """Return whether these are real images with the 30 sentiments of Pittsburgh Ads, the data set of the paper."""
    return not images.synthetic and images.label_names == [sentiment.abbreviation for sentiment in SENTIMENTS]


def note(names: Iterable[str]) -> str:
    """Return the notes on the metrics of a table."""
    names = list(names)
    notes = [text for key, text in _NOTES.items() if any(key in name for name in names)]
    return " ".join(["Measured on the test part.", *notes])


def _interval_table(rows: Mapping[str, Measures], intervals: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Format every metric with its interval, a column for each method, and add the notes."""
    chosen = {f"{key}{CHOSEN}": f"{METRIC_NAMES[key]}*" for key in THRESHOLD_METRICS}
    names = {
        key: name
        for key, name in (METRIC_NAMES | chosen | RETRIEVAL).items()
        if any(key in measures for measures in rows.values())
    }

    def cell(method: str, key: str) -> str:
        if key not in rows[method]:
            return ""
        low, high = intervals[method][key]
        return f"{rows[method][key]:.3f} ({low:.3f} to {high:.3f})"

    cells = ([name, *(cell(method, key) for method in rows)] for key, name in names.items())
    return [_markdown(["metric", *rows], cells), f"{note(names.values())} {_INTERVAL_NOTE}"]


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in [list(heads), *cells]) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return f"| {' | '.join([row[0].ljust(widths[0]), *rest])} |"

    return "\n".join(map(line, [heads, ["-" * width for width in widths], *cells]))


def comparison_rows(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measures]:
    """Return the test metrics of the method of each run, and of the baselines where they differ between runs."""
    titles = [metrics["title"] for metrics in runs.values()]
    rows: dict[str, Measures] = {}
    for name, metrics in runs.items():
        for method, measures in metrics["test"].items():
            found = [other["test"][method] for other in runs.values() if method in other["test"]]
            if method in titles:
                if metrics["title"] == method:
                    rows[method if titles.count(method) == 1 else f"{name}: {method}"] = measures
                elif found.count(measures) == 1:  # a baseline that was trained with the settings of this run
                    rows[f"{name}: {method}"] = measures
            elif measures not in rows.values():
                rows[method if found.count(measures) == len(found) else f"{name}: {method}"] = measures
    return rows


def results(rows: Mapping[str, Measures], *, with_paper: bool, below: Iterable[str] | None = None) -> list[str]:
    """Format the table of a run or a comparison, with notes.

    Args:
        rows: The test metrics of each method.
        with_paper: Whether one of the methods is that of the paper.
        below: The sentences on methods below the label frequencies; by default those of `rows`.

    Returns:
        Paragraphs.
    """
    sentences = below_frequencies(rows) if below is None else below
    return [table(rows), note(COLUMNS.values()) + (f" {_PAPER_NOTE}" if with_paper else ""), *sentences]


def comparison_report(
    title: str, runs: Mapping[str, Mapping[str, Any]], *, is_pittsburgh: bool, failed_figures: Mapping[str, str]
) -> str:
    """Write the report of several runs on the same images.

    Args:
        title: The heading of the report.
        runs: The content of the `metrics.json` of each run.
        is_pittsburgh: Whether the images are those of the paper; if so, its results are included.
        failed_figures: The error of each figure that could not be drawn.

    Returns:
        Markdown.
    """
    caveats = dict.fromkeys(caveat for metrics in runs.values() for caveat in metrics["caveats"])
    below = dict.fromkeys(sentence for metrics in runs.values() for sentence in below_frequencies(metrics["test"]))
    with_paper = any(metrics["method"] == "paper" for metrics in runs.values())
    warned = dict.fromkeys(text for metrics in runs.values() for text in metrics["warnings"])
    parts = [f"# {title}", *_block_quotes(caveats), *results(comparison_rows(runs), below=below, with_paper=with_paper)]
    parts += [] if failed_figures else ["![The methods on the test images](comparison.png)"]
    parts += _failed(failed_figures) + (_paper() if is_pittsburgh else []) + _warning_section(warned)
    return "\n\n".join(parts) + "\n"


def run_report(title: str, metrics: Mapping[str, Any], *, is_pittsburgh: bool) -> str:
    """Write the report of one run.

    Args:
        title: The heading of the report.
        metrics: The content of `metrics.json`.
        is_pittsburgh: Whether the images are those of the paper; if so, its results are included.

    Returns:
        Markdown.
    """
    data, seconds = metrics["data"], metrics["seconds"]
    parts = [f"# {title}", *_block_quotes(metrics["caveats"]), "## Results"]
    parts += results(metrics["test"], with_paper=metrics["method"] == "paper")
    parts += ["## Every metric, with 95 % intervals (test)"]
    parts += _interval_table(metrics["test"], metrics["test_intervals"])
    parts += _paper() if is_pittsburgh else []
    parts += [
        "## Data",
        f"{data['images']} images ({data['train']} / {data['validation']} / {data['test']} for training, validation "
        f"and test), {data['labels']} labels, {data['cardinality']:.2f} labels per image. Training part before "
        f"undersampling (`{data['undersampler']}`): MeanIR {data['mean_ir_before']:.2f}, SCUMBLE "
        f"{data['scumble_before']:.3f}; after: {data['train_after']} images, MeanIR {data['mean_ir_after']:.2f}.",
        _count_table(metrics["train_labels"]),
        "## Each label (test)",
        _label_table(metrics["test_labels"]),
        "## Time",
        "| step | seconds |\n| --- | ---: |\n"
        + "\n".join(f"| {step} | {value:.1f} |" for step, value in seconds.items()),
        f"If the run was resumed, the times count from the last start. Peak memory of the process: "
        f"{metrics['peak_memory_mb']:.0f} MB.",
        *_warning_section(metrics["warnings"]),
        "## Figures",
    ]
    if data["labels"] > MAX_LABELS:
        parts += [f"The figures of labels show the {MAX_LABELS} most frequent of the {data['labels']} labels."]
    failed = metrics["failed_figures"]
    drawn = {name: caption for name, caption in _CAPTIONS.items() if name in metrics["figures"]}
    parts += [f"### {caption}\n\n![{caption}](figures/{name})" for name, caption in drawn.items()] + _failed(failed)
    return "\n\n".join(parts) + "\n"


def _block_quotes(caveats: Iterable[str]) -> list[str]:
    return [f"> **{caveat}**" for caveat in caveats]


def _warning_section(texts: Iterable[str]) -> list[str]:
    lines = "\n".join(f"- {' '.join(text.split())}" for text in texts)
    return ["## Warnings of the run", lines] if lines else []


def _failed(figures: Mapping[str, str]) -> list[str]:
    return [f"The figure `{name}` could not be drawn: {' '.join(reason.split())}" for name, reason in figures.items()]


def _paper() -> list[str]:
    return [
        f'### Results of "{PAPER}"',
        table(_PAPER_TABLE, ("map", "macro_f1", "of1")),
        "On 30,340 images of Pittsburgh Ads. The paper does not publish its split, so the test images are not those of "
        "this run.",
    ]


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
