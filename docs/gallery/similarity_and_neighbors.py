"""What a similarity does to neighbours.

Seven label similarities are compared: which rows count as similar, and how many labels these rows have. The labels are
synthetic.
"""

# %%
# Scenes with labels that depend on each other: coasts have `sea`, half of them also `boat`; mountains have `snow`.

import numpy as np
import torch
from matplotlib import pyplot as plt

from mlmetric.similarity import Cosine, Dice, Hamming, InnerProduct, Jaccard, Overlap, SoftCosine

names = ["sea", "beach", "boat", "mountain", "snow", "sunset", "people", "trees"]
coast = [0.9, 0.6, 0.5, 0.05, 0.0, 0.3, 0.4, 0.2]
alps = [0.02, 0.0, 0.02, 0.9, 0.6, 0.2, 0.2, 0.5]
rng = np.random.default_rng(0)
is_coast = rng.random((2000, 1)) < 0.5
labels = torch.from_numpy((rng.random((2000, 8)) < np.where(is_coast, coast, alps)).astype(np.int64))
labels = labels[labels.sum(dim=1) > 0]

similarities = {
    "InnerProduct": InnerProduct(),
    "Overlap": Overlap(),
    "Cosine": Cosine(),
    "Dice": Dice(),
    "Jaccard": Jaccard(),
    "Hamming": Hamming(),
    "SoftCosine": SoftCosine.from_cooccurrence(labels),
}

# %%
# Each row of the table is a label set that is compared with {sea, beach}. Two decisions differ most: whether additional
# labels lower the similarity, and whether `boat`, which the query does not have, counts as related.


def label_set(*present: str) -> torch.Tensor:
    """Make a row with these labels."""
    return torch.tensor([[name in present for name in names]]).long()


query = label_set("sea", "beach")
refs = [
    ("sea", "beach"),
    ("sea", "beach", "sunset", "people", "trees"),
    ("sea",),
    ("sea", "snow"),
    ("boat",),
    ("snow",),
]
table = torch.cat([torch.cat([s(query, label_set(*ref)) for s in similarities.values()], dim=1) for ref in refs])

figure, axes = plt.subplots(figsize=(8.2, 3.8), layout="constrained")
relative = table / table.amax(dim=0)
axes.imshow(relative, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
for row, column in np.ndindex(*table.shape):
    colour = "white" if relative[row, column] > 0.8 else "black"
    axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", color=colour)
axes.set_xticks(range(len(similarities)), similarities, rotation=20)
axes.set_yticks(range(len(refs)), ["{" + ", ".join(ref) + "}" for ref in refs])
axes.tick_params(length=0)
axes.spines[:].set_visible(False)
axes.set_title("Similarity of label sets to {sea, beach}")

# %%
# `InnerProduct` counts shared labels, so rows with many labels are similar to every query. The next figure shows the
# mean number of labels of the 20 most similar rows, by the number of labels of the query.

queries, sizes = labels[:600], labels[:600].sum(dim=1)
generator = torch.Generator().manual_seed(0)
noise = 1e-6 * torch.rand(600, len(labels) - 600, generator=generator)  # ties in random order
figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
shown = {
    "InnerProduct": ("#D55E00", 5),
    "Overlap": ("#CC79A7", 0),
    "Jaccard": ("#0072B2", 2),
    "SoftCosine": ("#009E73", -6),
}
for name, (colour, shift) in shown.items():
    found = (similarities[name](queries, labels[600:]) + noise).topk(20).indices
    means = [labels[600:][found[sizes == size]].sum(dim=-1).float().mean().item() for size in range(1, 6)]
    print(f"{name:12} {means[0]:.1f} labels for queries with 1, {means[-1]:.1f} for queries with 5")
    axes.plot(range(1, 6), means, marker="o", color=colour)
    axes.annotate(name, (5, means[-1]), xytext=(8, shift), textcoords="offset points", color=colour, va="center")
axes.plot([1, 5], [1, 5], color="0.6", linestyle="--", zorder=0)
axes.annotate("as many as the query", (3.1, 2.8), rotation=27, color="0.4")
axes.set(xlabel="labels of the query", ylabel="labels of its 20 most similar rows", xticks=range(1, 6), xlim=(0.9, 6))
axes.set_title("InnerProduct finds rows with many labels, Jaccard rows of equal size")

# %%
# Use `Jaccard` if a good neighbour has the same labels and no others, `InnerProduct` if it has as many of them as
# possible, and `SoftCosine` if related labels count.
#
# See also: [Similarities](../guide/similarities.md), [the API](../api/similarity.md), and
# [retrieval metrics](../guide/retrieval_metrics.md), which take any of these similarities.
