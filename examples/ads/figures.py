"""The figures of a run: labels, training curves, average precision by support, the embedding, what it retrieves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from torch import Tensor

from mlmetric.data import read_image
from mlmetric.labels import cooccurrence, label_counts
from mlmetric.metrics import average_precision
from mlmetric.neighbors import kneighbors
from mlmetric.training import EpochRecord

from .evaluation import Scored
from .labelled_images import LabelledImages

mpl.use("Agg")
mpl.rcParams["text.parse_math"] = False  # a label may hold a dollar sign

Floats = npt.NDArray[Any]
Labels = npt.NDArray[Any]
_MAX_EMBEDDED = 2000
_NUM_QUERIES, _NUM_NEIGHBOURS = 5, 5

_COLOURS = [colour for i, colour in enumerate(plt.get_cmap("tab10").colors) if i != 7]  # grey is for "none"


def draw_training(histories: Mapping[str, Sequence[EpochRecord]], folder: Path) -> None:
    """Draw the training curves: of embeddings where some were trained, and of the classifier, the last stage."""
    embeddings = {name: history for name, history in histories.items() if "val_ndcg_at_10" in history[0]}
    classifier = list(histories.values())[-1]
    retrieval = {f"{name}, NDCG@10": _of(history, "val_ndcg_at_10") for name, history in embeddings.items()}
    if embeddings:
        plot_curve(
            {name: _of(history, "loss") for name, history in embeddings.items()},
            title="Stage one: loss",
            unit="mean loss of a training image",
            path=folder / "embedding_loss.png",
        )
    plot_curve(
        {"training": _of(classifier, "loss"), "validation": _of(classifier, "val_loss")},
        title="Classifier: loss",
        unit="mean loss (nats)",
        path=folder / "bce.png",
    )
    plot_curve(
        {"validation": _of(classifier, "val_macro_f1")},
        title="Classifier: macro F1 at 0.5",
        unit="macro F1",
        path=folder / "f1.png",
    )
    plot_curve(
        {"classifier, mAP": _of(classifier, "val_map")} | retrieval,
        title="Validation: mAP of the classifier" + (", NDCG@10 of stage one" if retrieval else ""),
        unit="score",
        path=folder / "map.png",
    )


def _of(history: Sequence[EpochRecord], name: str) -> list[tuple[float, float]]:
    return [(record["epoch"], record[name]) for record in history]


def draw_labels(before: Tensor, after: Tensor, names: Sequence[str], folder: Path) -> None:
    """Draw counts and co-occurrence of the training labels."""
    plot_label_counts(label_counts(before).numpy(), label_counts(after).numpy(), names, folder / "label_counts.png")
    plot_cooccurrence(cooccurrence(before).numpy(), names, folder / "cooccurrence.png")


def draw_evaluation(test: Scored, names: Sequence[str], folder: Path) -> None:
    """Draw average precision by support."""
    support = test.labels.sum(0).numpy()
    plot_ap_by_support(
        average_precision(test.scores, test.labels).numpy(),
        support,
        len(test.labels),
        names,
        folder / "ap_by_support.png",
    )


def draw_space(
    embeddings: Tensor, images: LabelledImages, parts: Mapping[str, Tensor], folder: Path, *, seed: int
) -> None:
    """Draw the embedding in two dimensions, and what test images retrieve in it."""
    held_out = torch.cat([parts["test"], parts["validation"]])[:_MAX_EMBEDDED]
    plot_embedding(
        embeddings[held_out].numpy(),
        images.labels[held_out].numpy(),
        images.label_names,
        seed=seed,
        path=folder / "embedding.png",
    )

    step = max(1, len(parts["test"]) // _NUM_QUERIES)
    queries = parts["test"][::step][:_NUM_QUERIES]
    _, nearest = kneighbors(embeddings[parts["train"]], _NUM_NEIGHBOURS, queries=embeddings[queries])
    found = parts["train"][nearest]
    plot_retrieval(
        [images.root / images.paths[row] for row in queries.tolist()],
        [[images.root / images.paths[row] for row in rows] for rows in found.tolist()],
        [set(images.names_of(row)) for row in queries.tolist()],
        [[set(images.names_of(row)) for row in rows] for rows in found.tolist()],
        folder / "retrieval.png",
    )


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def plot_label_counts(before: Labels, after: Labels, names: Sequence[str], path: Path) -> None:
    """Draw how many training images carry each label, before and after undersampling (paper, figure 2)."""
    order = np.argsort(-before)
    figure, axes = plt.subplots(figsize=(max(6.0, 0.34 * len(names)), 4.2), layout="constrained")
    places = np.arange(len(names))
    axes.bar(places - 0.2, before[order], 0.4, label="before", color=_COLOURS[0])
    axes.bar(places + 0.2, after[order], 0.4, label="after", color=_COLOURS[1])
    axes.set_xticks(places, [names[i] for i in order], rotation=60, ha="right", rotation_mode="anchor")
    axes.set(ylabel="training images with the label", title="Label counts before and after undersampling")
    axes.legend()
    _save(figure, path)


def plot_curve(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, unit: str, path: Path) -> None:
    """Draw one or more curves over epochs (paper, figures 5 to 8)."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="epoch", ylabel=unit, title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_comparison(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], path: Path) -> None:
    """Draw how methods compare: a group of bars for each metric, a bar for each method that has it."""
    figure, axes = plt.subplots(figsize=(max(7.0, 1.9 * len(columns)), 4.4), layout="constrained")
    width = 0.84 / len(rows)
    for number, (method, measures) in enumerate(rows.items()):
        known = [place for place, column in enumerate(columns) if column in measures]
        values = [measures[list(columns)[place]] for place in known]
        places = np.array(known) + (number - (len(rows) - 1) / 2) * width
        bars = axes.bar(places, values, width, label=method, color=plt.get_cmap("tab10")(number % 10))
        axes.bar_label(bars, fmt="%.2f", fontsize=6, rotation=90, padding=2)
    axes.set_xticks(range(len(columns)), columns.values())
    axes.set(ylabel="score", ylim=(0, 1.08), title="The methods on the test images")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def plot_cooccurrence(cooccurrence: Floats, names: Sequence[str], path: Path) -> None:
    """Draw the share of the rows of one label that carry another."""
    counts = np.diag(cooccurrence)
    order = np.argsort(-counts)
    share = cooccurrence[np.ix_(order, order)] / np.maximum(counts[order], 1)[:, None]
    np.fill_diagonal(share, np.nan)
    side = max(5.0, 0.26 * len(names) + 2)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(share, cmap="viridis", vmin=0)
    ordered = [names[i] for i in order]
    axes.set_xticks(range(len(names)), ordered, rotation=90)
    axes.set_yticks(range(len(names)), ordered)
    axes.set(xlabel="... also carries this label", ylabel="of the training images with this label ...")
    axes.set_title("Label co-occurrence (most frequent label first)")
    figure.colorbar(image, ax=axes, label="share of images", shrink=0.8)
    _save(figure, path)


def plot_ap_by_support(
    average_precision: Floats, support: Labels, num_rows: int, names: Sequence[str], path: Path
) -> None:
    """Draw the average precision of each label over its number of positives, and what chance reaches."""
    figure, axes = plt.subplots(figsize=(8.4, 5.2), layout="constrained")
    known = support > 0
    axes.scatter(support[known], average_precision[known], s=22, color=_COLOURS[0], zorder=3, label="label")
    for i, height in _spread(support, average_precision, np.flatnonzero(known)).items():
        axes.annotate(
            names[i], (support[i], height), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center"
        )
    chance = np.arange(1, support.max() + 1)
    axes.plot(chance, chance / num_rows, color="grey", linestyle="--", label="chance: share of positives")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set(xlabel=f"positives among {num_rows} test images (log scale)", ylabel="average precision", ylim=(0, 1.03))
    axes.set_title("Average precision of each label by its support (test)")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    _save(figure, path)


def _spread(support: Labels, heights: Floats, labels: Labels, *, gap: float = 0.026) -> dict[int, float]:
    """Push names apart that would cover each other: labels of about the same support and average precision."""
    placed: dict[int, float] = {}
    for i in sorted(labels, key=lambda i: heights[i]):
        near = [height for j, height in placed.items() if abs(np.log10(support[i] / support[j])) < 0.17]
        height = float(heights[i])
        while any(abs(height - other) < gap for other in near):
            height += 0.002
        placed[int(i)] = height
    return placed


def plot_embedding(embeddings: Floats, labels: Labels, names: Sequence[str], *, seed: int, path: Path) -> None:
    """Draw embeddings in two dimensions by t-SNE, coloured by the rarest of the eight most frequent labels."""
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)
    frequent = np.argsort(-labels.sum(0))[:8]
    figure, axes = plt.subplots(figsize=(7.6, 5.6), layout="constrained")
    colour = np.full(len(labels), -1)
    for rank, label in enumerate(frequent):
        colour[labels[:, label] > 0] = rank
    axes.scatter(*points[colour < 0].T, s=8, color="lightgrey", label="none of these")
    for rank, label in enumerate(frequent):
        axes.scatter(*points[colour == rank].T, s=10, color=_COLOURS[rank], label=names[label])
    axes.set(xticks=[], yticks=[], xlabel="t-SNE dimension 1", ylabel="t-SNE dimension 2")
    axes.set_title(f"Embedding of {len(points)} validation and test images")
    axes.legend(title="rarest of the eight\nmost frequent labels", loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def plot_retrieval(
    query_paths: Sequence[Path],
    neighbour_paths: Sequence[Sequence[Path]],
    query_names: Sequence[set[str]],
    neighbour_names: Sequence[Sequence[set[str]]],
    path: Path,
) -> None:
    """Draw query images with their nearest neighbours and the labels that they share."""
    columns = 1 + len(neighbour_paths[0])
    figure, grid = plt.subplots(
        len(query_paths), columns, figsize=(2.1 * columns, 2.75 * len(query_paths)), squeeze=False, layout="constrained"
    )
    for row, query in enumerate(query_paths):
        _picture(grid[row, 0], query, "query: " + ", ".join(sorted(query_names[row])), "black")
        for column, neighbour in enumerate(neighbour_paths[row], start=1):
            shared = sorted(query_names[row] & neighbour_names[row][column - 1])
            _picture(
                grid[row, column], neighbour, "shares " + (", ".join(shared) or "nothing"), "green" if shared else "red"
            )
    figure.suptitle("Test images (left) and their nearest training images in the embedding, nearest first")
    _save(figure, path)


def _picture(axes: plt.Axes, path: Path, text: str, colour: str) -> None:
    thumbnail = read_image(path)
    thumbnail.thumbnail((200, 200))
    axes.imshow(thumbnail)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(_wrapped(text), fontsize=7, color=colour)


def _wrapped(text: str, width: int = 30, lines: int = 4) -> str:
    words, rows = text.split(" "), [""]
    for word in words:
        if len(rows[-1]) + len(word) >= width:
            rows.append("")
        rows[-1] += f"{word} "
    kept = rows[:lines]
    return "\n".join(row.strip() for row in kept) + (" ..." if len(rows) > lines else "")
