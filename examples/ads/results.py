"""Write the results of a run: `predictions.csv`, `metrics.json`, the model, the figures and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from common.files import write_atomically
from mlmetric.heads import LateFusionClassifier
from mlmetric.imbalance import label_cardinality, mean_ir, scumble
from mlmetric.text import TextReader

from . import figures
from .config import Config
from .evaluation import Evaluation, Predictions, measure_counts, measure_labels
from .features import ImageFeatures
from .labelled_images import save_predictions
from .methods import METHODS, MethodResult, RunContext
from .monitoring import peak_memory_mb, timed
from .report import is_pittsburgh, run_report
from .retrieved import retrieve
from .texts import JoinedViews, describe_text


@dataclass(frozen=True)
class TrainedRun:
    """A run after its training and evaluation.

    Attributes:
        config: The options.
        extracted: The features and their images.
        joined: The features joined with the features of the texts; None without text.
        parts: The indices of the images of the parts "train", "validation" and "test".
        context: The data and settings with which the methods were trained, and the records of training.
        fitted: The results of the method and of the linear probe, by title.
        evaluation: Their metrics.
    """

    config: Config
    extracted: ImageFeatures
    joined: JoinedViews | None
    parts: Mapping[str, Tensor]
    context: RunContext
    fitted: Mapping[str, MethodResult]
    evaluation: Evaluation

    @property
    def title(self) -> str:
        """The title of the method."""
        return METHODS[self.config.method].title

    @property
    def tested(self) -> Predictions:
        """The predictions of the method for the test images."""
        rows = self.parts["test"]
        return Predictions(self.fitted[self.title].scores[rows], self.extracted.images.labels[rows])


def write_results(run: TrainedRun, folder: Path, warning_texts: Sequence[str]) -> dict[str, Any]:
    """Write the results of a run into a folder.

    Args:
        run: The run.
        folder: The folder.
        warning_texts: The warnings of the run.

    Returns:
        The content of `metrics.json`.
    """
    images, seconds = run.extracted.images, run.context.seconds
    held_out = {name: run.parts[name] for name in ("validation", "test")}
    scores, thresholds = run.fitted[run.title].scores, run.evaluation.thresholds[run.title]
    save_predictions(folder / "predictions.csv", images, held_out, scores, thresholds)
    embeddings = run.fitted[run.title].embeddings
    metrics = _metrics(run) | {"retrieved": retrieve(embeddings, images, run.parts)}
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1))
    _save_model(run, folder / "model", metrics)
    before = images.targets[run.parts["train"]]
    after = None if run.config.chosen_undersampler == "none" else run.context.targets
    drawings = {
        **figures.training_figures(run.context.histories, keep_best=run.context.settings.get("keep_best", False)),
        **figures.label_figures(before, after, run.tested, images.label_names),
        **figures.embedding_figures(embeddings, images, run.parts, metrics["retrieved"], seed=run.config.seed),
    }
    with timed("figures", seconds):
        failed = figures.draw(drawings, folder / "figures")
    metrics |= {
        "figures": sorted(drawings.keys() - failed.keys()),
        "failed_figures": failed,
        "warnings": [*run.extracted.warnings, *warning_texts],
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1))
    report = run_report(f"A run on {images.title}", metrics, is_pittsburgh=is_pittsburgh(images))
    write_atomically(folder / "report.md", report)
    return metrics


def _metrics(run: TrainedRun) -> dict[str, Any]:
    """Return the content of `metrics.json`, without what the figures and the end of the run add."""
    images, thresholds = run.extracted.images, run.evaluation.thresholds[run.title]
    before, after = images.targets[run.parts["train"]], run.context.targets
    return {
        **run.evaluation.measures,
        "test_intervals": run.evaluation.intervals,
        "train_labels": measure_counts(before, after, images.label_names),
        "test_labels": measure_labels(run.tested, thresholds, images.label_names),
        "data": {
            "images": len(images.paths),
            **{name: len(rows) for name, rows in run.parts.items()},
            "labels": len(images.label_names),
            "cardinality": label_cardinality(images.labels),
            "undersampler": run.config.chosen_undersampler,
            "train_after": len(after),
            "mean_ir_before": mean_ir(before),
            "mean_ir_after": mean_ir(after),
            "scumble_before": scumble(images.labels[run.parts["train"]]),
        },
        "text": _text(run),
        "method": run.config.method,
        "title": run.title,
        "settings": dict(run.context.settings),
        "history": run.context.histories,
        "caveats": _caveats(run.extracted),
        "bad_images": run.extracted.bad_images,
    }


def _text(run: TrainedRun) -> dict[str, Any] | None:
    if run.joined is None:
        return None
    classifier = getattr(run.fitted[run.title].estimator, "classifier_", None)
    is_late = isinstance(classifier, LateFusionClassifier)
    weights = dict(zip(classifier.views, classifier.weights.tolist(), strict=True)) if is_late else None
    return describe_text(run.config, run.extracted.images, run.joined, run.parts) | {"view_weights": weights}


def _save_model(run: TrainedRun, folder: Path, metrics: Mapping[str, Any]) -> None:
    """Save the trained estimator with its backbone, and the thresholds that `predictions.csv` was made with."""
    estimator = run.fitted[run.title].estimator
    if estimator is None:
        return
    counts = metrics["data"]
    record = {
        "name": f"{run.title.capitalize()} of {run.extracted.images.title}",
        "data": f"{counts['train']} images for training, {counts['validation']} for validation, {counts['test']} for "
        "testing",
        "metrics": metrics["test"][run.title],
        "limits": " ".join(metrics["caveats"]),
    }
    names = run.extracted.images.label_names
    model = estimator.to_model(
        backbone=run.extracted.backbone,
        text_features=None if run.joined is None else run.joined.text_features,
        text_reader=TextReader() if run.config.ocr else None,
        label_names=names,
        record=record,
    )
    model.thresholds.copy_(run.evaluation.thresholds[run.title])
    model.save_pretrained(folder)


def _caveats(extracted: ImageFeatures) -> list[str]:
    caveats = []
    if extracted.images.synthetic:
        caveats.append("The images are synthetic: these results say nothing about real advertisements.")
    if extracted.resolved["weights"] == "random":
        caveats.append("The backbone has random weights: its features are not trained on photographs.")
    caveats += extracted.images.notes
    if extracted.bad_images:
        caveats.append(f"{len(extracted.bad_images)} images could not be read and were excluded: see metrics.json.")
    return caveats
