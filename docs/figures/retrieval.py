"""Draw the picture of the README from a run of the example.

    python examples/ad_sentiment.py
    PYTHONPATH=examples python docs/figures/retrieval.py [RUN FOLDER]

The queries are the first two of the five that the example draws.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import torch
from matplotlib import pyplot as plt
from PIL import Image

from ads.reader import read_annotations
from mlmetric.data import stratified_split
from mlmetric.models import MultiLabelModel
from mlmetric.search import SearchIndex

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "pages" / "images" / "retrieval.png"
NUM_QUERIES, NUM_HITS = 2, 3


def draw(axes: plt.Axes, path: Path, title: str, text: str) -> None:
    """Draw an image with a title above and a text below."""
    axes.imshow(Image.open(path).convert("RGB").resize((240, 240)))
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel(text, fontsize=9.5)


def main(run: Path) -> None:
    """Search for the test images of a run, and draw them with what is found."""
    posters = run / "posters"
    files = [next((posters / "annotations_images").rglob(name)) for name in ("Sentiments.json", "Sentiments_List.txt")]
    ads = read_annotations(*files)
    labels = ads.labels()
    test = stratified_split(labels, (0.8, 0.2), generator=torch.Generator().manual_seed(0))[1]
    rows = test[:: max(1, len(test) // 5)][:NUM_QUERIES]
    queries = [posters / ads.paths[row] for row in rows]
    true_names = [[ads.label_names[label] for label in labels[row].nonzero()] for row in rows]
    model = MultiLabelModel.from_pretrained(run / "model")
    found = SearchIndex.load(run / "index", model=model).search(queries, k=NUM_HITS, labels=true_names)

    figure, grid = plt.subplots(NUM_QUERIES, 1 + NUM_HITS, figsize=(8, 5.3), dpi=100, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.05)
    for axes, query, names, hits in zip(grid, queries, true_names, found, strict=True):
        draw(axes[0], query, "Query", wrapped(names))
        for other, hit in zip(axes[1:], hits, strict=True):
            draw(other, Path(str(hit.id)), f"Jaccard {sum(hit.shared.values()):.2f}", in_common(hit.shared))
    figure.savefig(TARGET)
    plt.close(figure)
    Image.open(TARGET).convert("RGB").quantize(128).save(TARGET, optimize=True)


def wrapped(names: list[str]) -> str:
    """Return names with commas, two in a line."""
    return ",\n".join(", ".join(names[start : start + 2]) for start in range(0, len(names), 2))


def in_common(shared: dict[str, float]) -> str:
    """Return the labels that a query and a hit have in common."""
    return "in common:\n" + (wrapped(list(shared)) if shared else "nothing")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "ad_sentiment")
