"""Draw the figure of the page "Mining with several labels": python docs/figures/mining.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import torch
from matplotlib import pyplot as plt
from pytorch_metric_learning.distances import LpDistance

from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import inner_product

TARGET = Path(__file__).parents[1] / "pages" / "images" / "mining.svg"
MARGIN = 0.8
# The anchor, its positive and references: x, y, and the labels among a, b, c, d, e.
POINTS = [
    (0.0, 0.0, "abc"),
    (1.5, 1.1, "abc"),
    (-0.7, 0.9, "ab"),
    (1.0, -0.6, "cd"),
    (-1.3, -0.3, "a"),
    (0.3, -1.4, "de"),
    (-0.35, -0.75, "e"),
    (1.2, 0.1, "d"),
    (-1.9, 1.0, "bc"),
    (0.4, 2.2, "de"),
    (2.3, -0.6, "ae"),
    (-2.2, -1.9, "d"),
    (2.1, -2.2, "ab"),
    (-1.0, 2.7, "be"),
    (2.9, 1.9, "e"),
    (0.3, 0.75, "abcd"),
]
KINDS = {
    "anchor": ("black", "*"),
    "positive": ("#0072B2", "P"),
    "partial, closer than the positive: semi-hard": ("#D55E00", "o"),
    "disjoint, closer than the positive": ("#CC79A7", "s"),
    "either, farther by less than the margin": ("#E69F00", "D"),
    "either, farther by more: easy": ("0.6", "v"),
    "as similar as the positive: no negative": ("#56B4E9", "P"),
}


def kinds_of_points(embeddings: torch.Tensor, labels: torch.Tensor) -> list[str]:
    """Return the kind of each point for anchor 0 and positive 1, by the result of the miner."""
    distance = LpDistance(normalize_embeddings=False)
    anchor, positive, disjoint_closer = "anchor", "positive", "disjoint, closer than the positive"
    kinds = [anchor, positive] + ["as similar as the positive: no negative"] * (len(labels) - 2)
    relations = {
        "easy": "either, farther by more: easy",
        "semihard": "either, farther by less than the margin",
        "hard": "partial, closer than the positive: semi-hard",
    }
    for relation, kind in relations.items():
        miner = MultiLabelSemiHardMiner(type_of_triplets=relation, margin=MARGIN, distance=distance)
        anchors, positives, negatives = miner(embeddings, labels)
        for negative in negatives[(anchors == 0) & (positives == 1)].tolist():
            shares = bool(inner_product(labels[:1], labels[negative, None]) > 0)
            kinds[negative] = disjoint_closer if relation == "hard" and not shares else kind
    return kinds


def main() -> None:
    """Draw the points, and circles at the distance of the positive and at that distance plus the margin."""
    embeddings = torch.tensor([point[:2] for point in POINTS])
    labels = torch.tensor([[name in point[2] for name in "abcde"] for point in POINTS]).long()
    radius = float(embeddings[1].norm())
    figure, axes = plt.subplots(figsize=(8.6, 5.4))
    for limit, style, text in ((radius, "-", "distance of the positive"), (radius + MARGIN, "--", "+ margin")):
        axes.add_patch(plt.Circle((0, 0), limit, fill=False, linestyle=style, color="0.5", linewidth=1))
        axes.annotate(text, (0, -limit), xytext=(0, -3), textcoords="offset points", ha="center", va="top", color="0.4")
    found = kinds_of_points(embeddings, labels)
    for kind, (color, marker) in KINDS.items():
        chosen = [index for index, name in enumerate(found) if name == kind]
        x, y = embeddings[chosen].T
        axes.scatter(x, y, c=color, marker=marker, s=190 if marker == "*" else 80, label=kind, zorder=3)
        for index in chosen:
            text = "{" + ", ".join(POINTS[index][2]) + "}"
            axes.annotate(text, POINTS[index][:2], xytext=(7, 6), textcoords="offset points", zorder=4)
    axes.set(aspect="equal", xlim=(-3.2, 3.6), ylim=(-3.1, 3.1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    plt.rcParams["svg.hashsalt"] = "mlmetric"  # for a reproducible file
    figure.savefig(TARGET, bbox_inches="tight", metadata={"Date": None})
    print(f"Drawn: {TARGET}")


if __name__ == "__main__":
    main()
