"""Plots of labels, training curves, scores and embeddings, each of bounded size whatever the number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from sklearn.manifold import TSNE

from common.files import write_atomically
from common.label_shares import label_shares, similarity_text
from mlmetric.data import read_image
from mlmetric.labels import label_counts
from mlmetric.search import Hit

mpl.use("Agg")
mpl.rcParams["text.parse_math"] = False  # a label can contain a dollar sign

Floats = npt.NDArray[Any]
Labels = npt.NDArray[Any]
MAX_LABELS = 40
"""Number of labels that a plot names: the most frequent ones."""
_MAX_CHARACTERS = 32  # of a label

_COLOURS = [colour for i, colour in enumerate(plt.get_cmap("tab10").colors) if i != 7]  # grey is for "none"


def most_frequent(counts: Floats, number: int = MAX_LABELS) -> npt.NDArray[np.int64]:
    """Return the labels with the largest counts in descending order; equal counts keep their order."""
    return np.argsort(-np.asarray(counts, dtype=np.float64), kind="stable")[:number]


def _selection(num_labels: int) -> str:
    """Return a note for a title if not all labels are shown."""
    return f"\n(the {MAX_LABELS} most frequent of {num_labels} labels)" if num_labels > MAX_LABELS else ""


def _short(name: str) -> str:
    return name if len(name) <= _MAX_CHARACTERS else f"{name[: _MAX_CHARACTERS - 3]}..."


def _save(figure: Figure, path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120, bbox_inches="tight")
    plt.close(figure)
    write_atomically(path, picture.getvalue())


def plot_label_counts(before: Labels, after: Labels | None, names: Sequence[str], path: Path) -> None:
    """Draw the number of training images of each label, before and after undersampling if `after` is given."""
    order = most_frequent(before)
    figure, axes = plt.subplots(figsize=(max(6.0, 0.34 * len(order)), 4.2), layout="constrained")
    places = np.arange(len(order))
    if after is None:
        axes.bar(places, before[order], 0.7, color=_COLOURS[0])
    else:
        axes.bar(places - 0.2, before[order], 0.4, label="before", color=_COLOURS[0])
        axes.bar(places + 0.2, after[order], 0.4, label="after", color=_COLOURS[1])
        axes.legend()
    axes.set_xticks(places, [_short(names[i]) for i in order], rotation=60, ha="right", rotation_mode="anchor")
    axes.set(ylabel="training images with the label")
    undersampling = "" if after is None else " before and after undersampling"
    axes.set_title(f"Label counts{undersampling}{_selection(len(names))}")
    _save(figure, path)


def plot_curve(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Path,
    *,
    title: str,
    unit: str,
    kept: Mapping[str, float] | None = None,
) -> None:
    """Draw curves over epochs.

    Args:
        curves: For each name, the epochs and values.
        path: The file.
        title: The title.
        unit: The label of the vertical axis.
        kept: For each curve, the epoch whose weights are kept; it is marked with a dot.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    kept = kept or {}
    if len(curves) > 10:  # more than the default colours
        axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for name, points in curves.items():
        (line,) = axes.plot(*zip(*points, strict=True), label=name, marker="_" if len(points) == 1 else "")
        if name in kept:
            axes.plot(kept[name], dict(points)[kept[name]], marker="o", color=line.get_color())
    axes.set(xlabel="epoch", ylabel=unit, title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    handles, _ = axes.get_legend_handles_labels()
    if kept:
        handles.append(Line2D([], [], color="black", marker="o", linestyle="", label="epoch that is kept"))
    if len(handles) > 4:
        axes.legend(handles=handles, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.set_figwidth(8.4)
    else:
        axes.legend(handles=handles)
    _save(figure, path)


def plot_comparison(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], path: Path) -> None:
    """Draw a group of bars for each metric, with a bar for each method that has it."""
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
    """Draw the share of the images with one label that also have another."""
    counts = np.diag(cooccurrence)
    order = most_frequent(counts)
    share = cooccurrence[np.ix_(order, order)] / np.maximum(counts[order], 1)[:, None]
    np.fill_diagonal(share, np.nan)
    side = max(5.0, 0.26 * len(order) + 2)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(share, cmap="viridis", vmin=0)
    ordered = [_short(names[i]) for i in order]
    axes.set_xticks(range(len(order)), ordered, rotation=90)
    axes.set_yticks(range(len(order)), ordered)
    axes.set(xlabel="... also have this label", ylabel="training images with this label ...")
    axes.set_title(f"Label co-occurrence, most frequent label first{_selection(len(names))}")
    figure.colorbar(image, ax=axes, label="share of images", shrink=0.8)
    _save(figure, path)


def plot_ap_by_support(
    average_precision: Floats, support: Labels, num_rows: int, names: Sequence[str], path: Path
) -> None:
    """Draw the average precision of each label by its number of positives, and of a random ranking."""
    figure, axes = plt.subplots(figsize=(8.4, 5.2), layout="constrained")
    known = support > 0
    axes.scatter(support[known], average_precision[known], s=22, color=_COLOURS[0], zorder=3, label="label")
    named = [label for label in most_frequent(support) if known[label]]
    for i, height in _spread(support, average_precision, named).items():
        axes.annotate(
            _short(names[i]), (support[i], height), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center"
        )
    chance = np.arange(1, support.max() + 1)
    axes.plot(chance, chance / num_rows, color="grey", linestyle="--", label="random ranking: share of positives")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12)
    axes.set(xlabel=f"positives among {num_rows} test images (log scale)", ylabel="average precision", ylim=(0, 1.03))
    of_all = f"\n({len(named)} of {known.sum()} labels are named)" if known.sum() > len(named) else ""
    axes.set_title(f"Average precision of each label by its support (test){of_all}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    _save(figure, path)


def _spread(support: Labels, heights: Floats, labels: Sequence[int], *, gap: float = 0.026) -> dict[int, float]:
    """Move apart names that would overlap: names of labels with similar support and average precision."""
    placed: dict[int, float] = {}
    for i in sorted(labels, key=lambda i: heights[i]):
        near = [height for j, height in placed.items() if abs(np.log10(support[i] / support[j])) < 0.17]
        height = float(heights[i])
        while any(abs(height - other) < gap for other in near):
            height += 0.002
        placed[int(i)] = height
    return placed


def plot_embedding(
    embeddings: Floats, labels: Labels, names: Sequence[str], path: Path, *, seed: int, images: str = "images"
) -> None:
    """Draw embeddings in two dimensions by t-SNE, coloured by the rarest of the eight most frequent labels.

    Args:
        embeddings: Shape `(N, E)`.
        labels: Multi-hot labels of the same rows, shape `(N, L)`; the most frequent labels are counted in these rows.
        names: The names of the L labels.
        path: The file.
        seed: Seed of t-SNE.
        images: What the rows are, for the title.
    """
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)
    counts = label_counts(labels)
    frequent = [label for label in most_frequent(counts, 8) if counts[label] > 0]
    figure, axes = plt.subplots(figsize=(7.6, 5.6), layout="constrained")
    colour = np.full(len(labels), -1)
    for rank, label in enumerate(frequent):
        colour[labels[:, label] > 0] = rank
    if (colour < 0).any():
        axes.scatter(*points[colour < 0].T, s=8, color="lightgrey", label="none of these")
    for rank, label in enumerate(frequent):
        axes.scatter(*points[colour == rank].T, s=10, color=_COLOURS[rank], label=_short(names[label]))
    axes.set(xticks=[], yticks=[], xlabel="t-SNE dimension 1", ylabel="t-SNE dimension 2")
    axes.set_title(f"Embedding of {len(points)} {images}")
    is_selection = len(frequent) < (counts > 0).sum()
    title = f"rarest of the {len(frequent)} most\nfrequent labels of these" if is_selection else "rarest label"
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def plot_retrieval(
    query_paths: Sequence[Path],
    neighbour_paths: Sequence[Sequence[Path]],
    query_names: Sequence[set[str]],
    neighbour_names: Sequence[Sequence[set[str]]],
    path: Path,
    *,
    title: str = "Query images (left) and their nearest neighbours in the embedding, nearest first",
) -> None:
    """Draw query images and their nearest neighbours, with the shares of the labels in the Jaccard index."""
    columns = 1 + len(neighbour_paths[0])
    figure, grid = plt.subplots(
        len(query_paths), columns, figsize=(2.1 * columns, 2.75 * len(query_paths)), squeeze=False, layout="constrained"
    )
    for row, query in enumerate(query_paths):
        _draw_image(grid[row, 0], query, f"query: {_list(query_names[row])}", "black")
        shares = label_shares(query_names[row], neighbour_names[row])
        for axes, neighbour, each in zip(grid[row, 1:], neighbour_paths[row], shares, strict=True):
            text = similarity_text((_short(name), share) for name, share in each)
            _draw_image(axes, neighbour, text, "green" if each else "red")
    figure.suptitle(title)
    _save(figure, path)


def plot_hits(
    query_paths: Sequence[Path], query_names: Sequence[set[str]], found: Sequence[Sequence[Hit]], path: Path
) -> None:
    """Draw query images and what a `SearchIndex` whose ids are paths found for each, as `plot_retrieval` does."""
    paths = [[Path(str(hit.id)) for hit in hits] for hits in found]
    plot_retrieval(query_paths, paths, query_names, [[set(hit.labels) for hit in hits] for hits in found], path)


def _draw_image(axes: plt.Axes, path: Path, text: str, colour: str) -> None:
    thumbnail = read_image(path)
    thumbnail.thumbnail((200, 200))
    axes.imshow(thumbnail)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(_wrapped(text), fontsize=7, color=colour)


def _list(names: set[str]) -> str:
    return ", ".join(_short(name) for name in sorted(names))


def _wrapped(text: str, width: int = 30, lines: int = 5) -> str:
    words, rows = text.split(" "), [""]
    for word in words:
        if len(rows[-1]) + len(word) >= width:
            rows.append("")
        rows[-1] += f"{word} "
    kept = rows[:lines]
    return "\n".join(row.strip() for row in kept) + (" ..." if len(rows) > lines else "")
