"""The figures of a run: training curves, labels, average precision by support, the embedding, retrieved images.

A figure that cannot be drawn does not end the run: it is logged and listed in the report.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from common import plots
from common.progress import progress_bar
from mlmetric.labels import cooccurrence, label_counts
from mlmetric.metrics import average_precision
from mlmetric.training import EpochRecord

from .evaluation import Predictions
from .labelled_images import LabelledImages

_MAX_EMBEDDED = 2000
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


def training_figures(histories: Mapping[str, Sequence[EpochRecord]], *, keep_best: bool) -> Figures:
    """Return the training curves of the embeddings and of a classifier that is trained alone, as far as there are any.

    Args:
        histories: The records of each stage; those of a classifier that is trained alone contain its validation loss.
        keep_best: Whether the epochs with the best validation scores are kept, or the last ones.
    """
    embeddings = {name: history for name, history in histories.items() if "val_ndcg_at_10" in history[0]}
    classifier = next((history for history in histories.values() if "val_loss" in history[0]), None)

    def curves(title: str, unit: str, *named: tuple[str, Sequence[EpochRecord], str, str]) -> Callable[[Path], None]:
        """Draw values by epoch: for each curve its name, the records, the value, and the score of the kept epoch."""
        points = {name: [(record["epoch"], record[key]) for record in history] for name, history, key, _ in named}
        kept = {name: _kept_epoch(history, score if keep_best else None) for name, history, _, score in named}
        return partial(plots.plot_curve, points, title=title, unit=unit, kept=kept)

    drawings: dict[str, Callable[[Path], None]] = {}
    if embeddings:
        drawings["embedding_loss.png"] = curves(
            "Embedding: loss",
            "mean loss over training images",
            *((name, history, "loss", "val_ndcg_at_10") for name, history in embeddings.items()),
        )
    if classifier is not None:
        drawings["bce.png"] = curves(
            "Classifier: loss",
            "mean loss (nats)",
            ("training", classifier, "loss", "val_map"),
            ("validation", classifier, "val_loss", "val_map"),
        )
        drawings["f1.png"] = curves(
            "Classifier: macro F1 at 0.5", "macro F1", ("validation", classifier, "val_macro_f1", "val_map")
        )
    scores = [
        (f"{name}, {title}", history, key, key)
        for key, title in (("val_map", "mAP of its classifier"), ("val_ndcg_at_10", "NDCG@10"))
        for name, history in embeddings.items()
        if key in history[0]
    ]
    if classifier is not None:
        scores.append(("classifier, mAP", classifier, "val_map", "val_map"))
    if scores:
        drawings["map.png"] = curves("Validation scores", "score", *scores)
    return drawings


def _kept_epoch(history: Sequence[EpochRecord], score: str | None) -> float:
    """Return the first epoch with the best score; the last one if there is no score, as in training."""
    scored = [record for record in history if score is not None and not isnan(record[score])]
    best = max(scored, key=lambda record: record[score or ""]) if scored else history[-1]
    return best["epoch"]


def label_figures(before: Tensor, after: Tensor | None, test: Predictions, names: Sequence[str]) -> Figures:
    """Return counts and co-occurrence of the training labels, and average precision by support on test images.

    Args:
        before: The labels of the training images.
        after: Those after undersampling, if there is any.
        test: The predictions for the test images.
        names: The names of the labels.
    """
    return {
        "label_counts.png": lambda path: plots.plot_label_counts(
            label_counts(before).numpy(), None if after is None else label_counts(after).numpy(), names, path
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


def embedding_figures(
    embeddings: Tensor,
    images: LabelledImages,
    parts: Mapping[str, Tensor],
    retrieved: Sequence[Mapping[str, Any]],
    *,
    seed: int,
) -> Figures:
    """Return the embedding in two dimensions, and the training images that test images retrieve (from `retrieve`)."""

    def draw_embedding(path: Path) -> None:
        held_out = torch.cat([parts["test"], parts["validation"]])[:_MAX_EMBEDDED]
        labels = images.labels[held_out].numpy()
        plots.plot_embedding(
            embeddings[held_out].numpy(),
            labels,
            images.label_names,
            path,
            seed=seed,
            images="validation and test images",
        )

    def draw_retrieval(path: Path) -> None:
        plots.plot_retrieval(
            [images.root / query["image"] for query in retrieved],
            [[images.root / found["image"] for found in query["found"]] for query in retrieved],
            [set(query["labels"]) for query in retrieved],
            [[set(found["labels"]) for found in query["found"]] for query in retrieved],
            path,
            title="Test images (left) and their nearest training images in the embedding, nearest first",
        )

    return {"embedding.png": draw_embedding, "retrieval.png": draw_retrieval}
