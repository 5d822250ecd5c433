"""The report of a run or a comparison: tables with explanations, the data, the time and the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.label_shares import SHARES_NOTE, similarity_text
from common.plots import MAX_LABELS
from common.tables import markdown_table

from .evaluation import behind_baselines
from .labelled_images import LabelledImages
from .metric_names import ALL_NAMES, COLUMNS, LABEL_FREQUENCIES, LINEAR_PROBE, explanations
from .synthetic import SENTIMENTS

Measures = Mapping[str, float]

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
    "label_counts.png": "Label counts of the training images",
    "embedding_loss.png": "Loss of the embedding by epoch",
    "bce.png": "Loss of the classifier by epoch (binary cross entropy)",
    "f1.png": "Macro F1 by epoch, at a probability of 0.5",
    "map.png": "mAP and NDCG@10 on validation images by epoch",
    "cooccurrence.png": "Label co-occurrence in the training images",
    "ap_by_support.png": "Average precision of each label by its support",
    "embedding.png": "The embedding in two dimensions",
    "retrieval.png": "Test images and their nearest training images",
}
_CURVES = ("embedding_loss.png", "bce.png", "f1.png", "map.png")
_PARTS = {"train": "training", "validation": "validation", "test": "testing"}
_INTERVAL_NOTE = (
    "The intervals are bootstrap intervals over test images: they measure the variation between samples of test "
    "images, not that between training runs. Cells of undefined metrics are empty."
)


def is_pittsburgh(images: LabelledImages) -> bool:
    """Return whether these are real images with the 30 sentiments of Pittsburgh Ads, the data set of the paper."""
    return not images.synthetic and images.label_names == [sentiment.abbreviation for sentiment in SENTIMENTS]


def comparison_rows(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Measures]:
    """Return the test metrics of the baselines, then the test metrics of the method of each run.

    The linear probe is the same in all runs; if a run trains it as its method, that run is used.
    """
    titles = [metrics["title"] for metrics in runs.values()]
    rows: dict[str, Measures] = {}
    for metrics in runs.values():
        for baseline in (LABEL_FREQUENCIES, LINEAR_PROBE):
            if baseline in metrics["test"] and (baseline not in titles or metrics["title"] == baseline):
                rows.setdefault(baseline, metrics["test"][baseline])
    for name, metrics in runs.items():
        title = metrics["title"]
        rows[title if titles.count(title) == 1 else f"{name}: {title}"] = metrics["test"][title]
    return rows


def results_of(metrics: Mapping[str, Any]) -> list[str]:
    """Format the table of a run, with explanations.

    Args:
        metrics: The content of `metrics.json`.

    Returns:
        Paragraphs.
    """
    behind = behind_baselines(metrics["title"], metrics["test"])
    return [*_table(metrics["test"]), *_paper_note([metrics]), *([behind] if behind else [])]


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
    rows = comparison_rows(runs)
    caveats = dict.fromkeys(caveat for metrics in runs.values() for caveat in metrics["caveats"])
    warned = dict.fromkeys(text for metrics in runs.values() for text in metrics["warnings"])
    samplers = {name: metrics["data"]["undersampler"] for name, metrics in runs.items()}
    parts = [f"# {title}", *_block_quotes(caveats), *_table(rows), *_paper_note(runs.values())]
    if len(set(samplers.values())) > 1:
        listed = ", ".join(f"`{sampler}` in the run {name}" for name, sampler in samplers.items() if sampler != "none")
        parts.append(f"Undersampler of the training images: {listed}, none in the others.")
    parts += [text for method in rows if (text := behind_baselines(method, rows))]
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
    given = {name: value for name, value in metrics["settings"].items() if value not in ((), [])}
    settings = ", ".join(f"{name} {value}" for name, value in given.items())
    parts = [f"# {title}", *_block_quotes(metrics["caveats"]), "## Results", *results_of(metrics)]
    parts += ["## Every metric, with 95 % intervals (test)"]
    parts += _interval_table(metrics["test"], metrics["test_intervals"])
    parts += _paper() if is_pittsburgh else []
    parts += ["## Method", f"`{metrics['method']}`" + (f": {settings}." if settings else ", without settings.")]
    parts += ["## Data", *_data(data), *_count_table(metrics["train_labels"], undersampler=data["undersampler"])]
    parts += ["## Text of the images", *_text(metrics["text"], data)] if metrics.get("text") else []
    parts += ["## Each label (test)", *_label_table(metrics["test_labels"])]
    parts += [
        "## Time",
        markdown_table(["step", "seconds"], ([step, f"{value:.1f}"] for step, value in seconds.items())),
        "If members are trained at the same time, the time of each counts from its start to its end. If "
        "the run was resumed, the times count from the last start. Peak memory of the process: "
        f"{metrics['peak_memory_mb']:.0f} MB.",
        *_warning_section(metrics["warnings"]),
        "## Figures",
    ]
    if data["labels"] > MAX_LABELS:
        parts += [f"The figures of labels show the {MAX_LABELS} most frequent of the {data['labels']} labels."]
    parts += _figures(metrics["figures"], keep_best=metrics["settings"].get("keep_best", False))
    parts += ["### Why the retrieved images are similar", *_retrieved(metrics["retrieved"])]
    return "\n\n".join(parts + _failed(metrics["failed_figures"])) + "\n"


def _table(rows: Mapping[str, Measures]) -> list[str]:
    """Format a row for each method, with the columns that at least one of them has, and explain the columns."""
    columns = {key: name for key, name in COLUMNS.items() if any(key in measures for measures in rows.values())}
    return [_metrics_table(rows, columns), explanations(columns, COLUMNS, rows)]


def _metrics_table(rows: Mapping[str, Measures], columns: Mapping[str, str]) -> str:
    cells = (
        [name, *(f"{measures[column]:.3f}" if column in measures else "" for column in columns)]
        for name, measures in rows.items()
    )
    return markdown_table(["method", *columns.values()], cells)


def _interval_table(rows: Mapping[str, Measures], intervals: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Format every metric with its interval, a column for each method, and explain the metrics."""
    keys = [key for key in ALL_NAMES if any(key in measures for measures in rows.values())]

    def cell(method: str, key: str) -> str:
        if key not in rows[method]:
            return ""
        low, high = intervals[method][key]
        return f"{rows[method][key]:.3f} ({low:.3f} to {high:.3f})"

    cells = ([ALL_NAMES[key], *(cell(method, key) for method in rows)] for key in keys)
    return [markdown_table(["metric", *rows], cells), explanations(keys, ALL_NAMES), _INTERVAL_NOTE]


def _data(data: Mapping[str, Any]) -> list[str]:
    after = (
        ""
        if data["undersampler"] == "none"
        else f" After undersampling (`{data['undersampler']}`): {data['train_after']} images, MeanIR "
        f"{data['mean_ir_after']:.2f}."
    )
    return [
        f"{data['images']} images ({data['train']} / {data['validation']} / {data['test']} for training, validation "
        f"and test), {data['labels']} labels, {data['cardinality']:.2f} labels per image. Training part: MeanIR "
        f"{data['mean_ir_before']:.2f}, SCUMBLE {data['scumble_before']:.3f}.{after}",
        "IRLbl is the number of images of the most frequent label, divided by that of the label; MeanIR is its mean "
        "over the labels. SCUMBLE, from 0 to 1, is high if frequent and rare labels occur in the same images.",
    ]


def _text(text: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """State where the texts are from, how many images have a text, and how the texts are used."""
    is_read = text["source"] == "--ocr"
    source = "The text was read from the images (`--ocr`)" if is_read else f"The texts are those of `{text['source']}`"
    counts = ", ".join(f"{text[part]} of {data[part]} for {use}" for part, use in _PARTS.items())
    lacking = " The others lack the view." if text["images"] < data["images"] else ""
    unknown, fitted = text["unknown_images"], ", fitted on the training part" if text["is_fitted"] else ""
    parts = [
        f"{source}: {text['images']} of {data['images']} images have text ({counts}).{lacking}"
        + (f" The texts of {unknown} other images were not used: they are not images of this run." if unknown else ""),
        f"Encoder: `{text['encoder']}`, {text['features']} features{fitted}. The linear probe is "
        "trained on the features of image and text, with the mean of the training part for an image without text; it "
        "retrieves by the features of the image alone.",
    ]
    if text["view_weights"]:
        weights = ", ".join(f"{view} {weight:.2f}" for view, weight in text["view_weights"].items())
        parts.append(f"Weights of the views in the probabilities: {weights}.")
    if "headlines_read_exactly" in text:
        parts.append(
            f"The headlines of these synthetic images are known: {text['headlines_read_exactly']:.1%} of them were "
            "read exactly."
        )
    return parts


def _count_table(labels: Mapping[str, Mapping[str, float | None]], *, undersampler: str) -> list[str]:
    """Format the number of training images of each label, before and, if applicable, after undersampling."""
    columns = {"count_before": "images", "ir_before": "IRLbl"}
    if undersampler != "none":
        columns = {
            "count_before": "images",
            "count_after": "images after undersampling",
            "ir_before": "IRLbl",
            "ir_after": "IRLbl after undersampling",
        }

    def cell(value: float | None, column: str) -> str:
        return "" if value is None else f"{value:g}" if column.startswith("count") else f"{value:.2f}"

    ordered = sorted(labels.items(), key=lambda item: -(item[1]["count_before"] or 0))
    cells = ([name, *(cell(row[column], column) for column in columns)] for name, row in ordered)
    return [markdown_table(["label (training part)", *columns.values()], cells)]


def _label_table(labels: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    columns = ("average_precision", "f1_chosen", "threshold")
    ordered = sorted(labels.items(), key=lambda item: -(item[1]["support"] or 0))
    cells = (
        [name, f"{row['support']:.0f}", *("" if row[column] is None else f"{row[column]:.3f}" for column in columns)]
        for name, row in ordered
    )
    return [
        markdown_table(["label", "images", "average precision", "F1*", "threshold"], cells),
        "Images: number of test images that have the label. The average precision of a label without images is not "
        "defined. F1* is F1 at the threshold.",
    ]


def _figures(names: Iterable[str], *, keep_best: bool) -> list[str]:
    kept = (
        "The dot is the epoch whose weights are kept: for an embedding the one with the best NDCG@10 on validation "
        "images, for a classifier the one with the best mAP."
        if keep_best
        else "The dot is the epoch whose weights are kept, the last one."
    )
    parts = []
    for name, caption in _CAPTIONS.items():
        if name in names:
            parts += [f"### {caption}", f"![{caption}](figures/{name})", *([kept] if name in _CURVES else [])]
    return parts


def _retrieved(queries: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the images that each query retrieved, nearest first, with the shares of the labels in the Jaccard index."""
    parts = [SHARES_NOTE]
    for query in queries:
        lines = [f"- `{found['image']}`: {similarity_text(found['shares'].items())}" for found in query["found"]]
        parts += [f"`{query['image']}` ({', '.join(query['labels']) or 'no label'}) found", "\n".join(lines)]
    return parts


def _paper_note(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    return [_PAPER_NOTE] if any(metrics["method"] == "paper" for metrics in runs) else []


def _paper() -> list[str]:
    columns = {key: COLUMNS[key] for key in ("map", "macro_f1", "of1")}
    return [
        f'### Results of "{PAPER}"',
        _metrics_table(_PAPER_TABLE, columns),
        "On 30,340 images of Pittsburgh Ads. The paper does not publish its split, so the test images are not those of "
        "this run.",
    ]


def _block_quotes(caveats: Iterable[str]) -> list[str]:
    return [f"> **{caveat}**" for caveat in caveats]


def _warning_section(texts: Iterable[str]) -> list[str]:
    lines = "\n".join(f"- {' '.join(text.split())}" for text in texts)
    return ["## Warnings of the run", lines] if lines else []


def _failed(figures: Mapping[str, str]) -> list[str]:
    return [f"The figure `{name}` could not be drawn: {' '.join(reason.split())}" for name, reason in figures.items()]
