"""The figures of a run: training curves, labels, average precision by support, the embedding, retrieved images.

A figure that cannot be drawn does not end the run: it is logged and listed in the report.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from mlmetric.labels import cooccurrence, label_counts
from mlmetric.metrics import average_precision
from mlmetric.neighbors import kneighbors
from mlmetric.training import EpochRecord

from . import plots
from .evaluation import Predictions
from .labelled_images import LabelledImages
from .monitoring import progress_bar

_MAX_EMBEDDED = 2000
_NUM_QUERIES, _NUM_NEIGHBOURS = 5, 5
_MISSING_CHARACTERS = "The font of the figures does not contain all characters of the labels: boxes are drawn instead."

Figures = Mapping[str, Callable[[Path], None]]
"""For each file name, the function that draws the figure into a file."""


def draw(figures: Figures, folder: Path) -> dict[str, str]:
    """Draw figures into a folder.

    Returns:
        The error of each figure that could not be drawn.
    """
    failed = {}
    texts: dict[str, None] = {}
    for name, draw_figure in progress_bar("figures", figures.items(), unit="figures"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                (folder / name).unlink(missing_ok=True)  # of a previous start, maybe with other numbers
                draw_figure(folder / name)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
                logging.warning("The figure %s could not be drawn (%s).", name, failed[name])
            finally:
                plt.close("all")
        for text in [str(warning.message) for warning in caught]:
            texts[_MISSING_CHARACTERS if "missing from font" in text else f"The figure {name}: {text}"] = None
    for text in texts:
        logging.warning("%s", text)
    return failed


def training_figures(histories: Mapping[str, Sequence[EpochRecord]]) -> Figures:
    """Return the training curves of the embeddings and of a classifier that is trained alone, as far as there are any.

    Args:
        histories: The records of each stage; those of a classifier that is trained alone contain its validation loss.
    """
    embeddings = {name: history for name, history in histories.items() if "val_ndcg_at_10" in history[0]}
    classifier = next((history for history in histories.values() if "val_loss" in history[0]), None)
    drawings: dict[str, Callable[[Path], None]] = {}
    if embeddings:
        drawings["embedding_loss.png"] = partial(
            plots.plot_curve,
            {name: _curve(history, "loss") for name, history in embeddings.items()},
            title="Embedding: loss",
            unit="mean loss over training images",
        )
    if classifier is not None:
        drawings["bce.png"] = partial(
            plots.plot_curve,
            {"training": _curve(classifier, "loss"), "validation": _curve(classifier, "val_loss")},
            title="Classifier: loss",
            unit="mean loss (nats)",
        )
        drawings["f1.png"] = partial(
            plots.plot_curve,
            {"validation": _curve(classifier, "val_macro_f1")},
            title="Classifier: macro F1 at 0.5",
            unit="macro F1",
        )
    scores = {
        f"{name}, {title}": _curve(history, key)
        for key, title in (("val_map", "mAP of its classifier"), ("val_ndcg_at_10", "NDCG@10"))
        for name, history in embeddings.items()
        if key in history[0]
    }
    if classifier is not None:
        scores["classifier, mAP"] = _curve(classifier, "val_map")
    if scores:
        drawings["map.png"] = partial(plots.plot_curve, scores, title="Validation scores", unit="score")
    return drawings


def _curve(history: Sequence[EpochRecord], name: str) -> list[tuple[float, float]]:
    return [(record["epoch"], record[name]) for record in history]


def label_figures(before: Tensor, after: Tensor, test: Predictions, names: Sequence[str]) -> Figures:
    """Return counts and co-occurrence of the training labels, and average precision by support on test images."""
    return {
        "label_counts.png": lambda path: plots.plot_label_counts(
            label_counts(before).numpy(), label_counts(after).numpy(), names, path
        ),
        "cooccurrence.png": lambda path: plots.plot_cooccurrence(cooccurrence(before).numpy(), names, path),
        "ap_by_support.png": lambda path: plots.plot_ap_by_support(
            average_precision(test.scores, test.labels).numpy(),
            label_counts(test.labels).numpy(),
            len(test.labels),
            names,
            path,
        ),
    }


def embedding_figures(embeddings: Tensor, images: LabelledImages, parts: Mapping[str, Tensor], *, seed: int) -> Figures:
    """Return the embedding in two dimensions, and the training images that test images retrieve."""

    def draw_embedding(path: Path) -> None:
        held_out = torch.cat([parts["test"], parts["validation"]])[:_MAX_EMBEDDED]
        labels = images.labels[held_out].numpy()
        plots.plot_embedding(embeddings[held_out].numpy(), labels, images.label_names, path, seed=seed)

    def draw_retrieval(path: Path) -> None:
        step = max(1, len(parts["test"]) // _NUM_QUERIES)
        queries = parts["test"][::step][:_NUM_QUERIES]
        _, nearest = kneighbors(embeddings[parts["train"]], _NUM_NEIGHBOURS, queries=embeddings[queries])
        found = parts["train"][nearest]
        plots.plot_retrieval(
            [images.root / images.paths[row] for row in queries.tolist()],
            [[images.root / images.paths[row] for row in rows] for rows in found.tolist()],
            [set(images.names_of(row)) for row in queries.tolist()],
            [[set(images.names_of(row)) for row in rows] for rows in found.tolist()],
            path,
        )

    return {"embedding.png": draw_embedding, "retrieval.png": draw_retrieval}
