"""Mining in two dimensions.

For one anchor and one positive, the miner divides the other rows into kinds of negatives. Rows that are less similar to
the anchor than the positive can be negatives; their distance decides which of them `type_of_triplets` selects. Points
and labels are made up.
"""

# %%
# Sixteen rows with labels among a to e. Row 0 is the anchor, row 1 the positive; both have the labels a, b and c.

import torch
from matplotlib import pyplot as plt
from pytorch_metric_learning.distances import LpDistance

from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import InnerProduct

margin = 0.8
x = [0.0, 1.5, -0.7, 1.0, -1.3, 0.3, -0.35, 1.2, -1.9, 0.4, 2.3, -2.2, 2.1, -1.0, 2.9, 0.3]
y = [0.0, 1.1, 0.9, -0.6, -0.3, -1.4, -0.75, 0.1, 1.0, 2.2, -0.6, -1.9, -2.2, 2.7, 1.9, 0.75]
sets = ["abc", "abc", "ab", "cd", "a", "de", "e", "d", "bc", "de", "ae", "d", "ab", "be", "e", "abcd"]
embeddings = torch.tensor([x, y]).T
labels = torch.tensor([[letter in row for letter in "abcde"] for row in sets]).long()

# %%
# Run the miner once for each kind of triplet, and keep the negatives of the pair (0, 1).

similarity = InnerProduct()
negatives = {}
for kind in ("hard", "semihard", "easy"):
    miner = MultiLabelSemiHardMiner(
        similarity=similarity, type_of_triplets=kind, margin=margin, distance=LpDistance(normalize_embeddings=False)
    )
    anchors, positives, refs = miner(embeddings, labels)
    negatives[kind] = refs[(anchors == 0) & (positives == 1)].tolist()
    print(f"{kind:8} {len(negatives[kind])} negatives: rows {negatives[kind]}")

# %%
# The circles have the distance of the positive as radius, and this distance plus the margin.

shares_labels = similarity(labels[:1], labels)[0] > 0
groups = {
    "anchor": ([0], "black", "*"),
    "positive": ([1], "#0072B2", "P"),
    "hard, shares labels with the anchor (partial)": (
        [i for i in negatives["hard"] if shares_labels[i]],
        "#D55E00",
        "o",
    ),
    "hard, shares none (disjoint)": ([i for i in negatives["hard"] if not shares_labels[i]], "#CC79A7", "s"),
    "semihard: farther by less than the margin": (negatives["semihard"], "#E69F00", "D"),
    "easy: farther by more": (negatives["easy"], "0.6", "v"),
}
used = {i for rows, _, _ in groups.values() for i in rows}
groups["as similar as the positive: no negative"] = ([i for i in range(16) if i not in used], "#56B4E9", "P")

figure, axes = plt.subplots(figsize=(7, 7.4), layout="constrained")
radius = float(embeddings[1].norm())
for limit, style, text in ((radius, "-", "distance of the positive"), (radius + margin, "--", "plus the margin")):
    axes.add_patch(plt.Circle((0, 0), limit, fill=False, linestyle=style, color="0.5"))
    axes.annotate(text, (0, -limit), xytext=(0, -3), textcoords="offset points", ha="center", va="top", color="0.4")
for name, (rows, colour, marker) in groups.items():
    axes.scatter(*embeddings[rows].T, c=colour, marker=marker, s=240 if name == "anchor" else 90, label=name, zorder=3)
    for i in rows:
        axes.annotate(",".join(sets[i]), embeddings[i].tolist(), xytext=(8, 6), textcoords="offset points")
axes.set(aspect="equal", xlim=(-3.2, 3.5), ylim=(-2.9, 3.1), xticks=[], yticks=[])
axes.spines[:].set_visible(False)
axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=9)
axes.set_title("The negatives of an anchor and a positive, both with labels a, b, c")

# %%
# `type_of_triplets="hard"`, the default, selects the orange and pink rows inside the circle: they are closer to the
# anchor than a more similar row. A row that shares two labels is a negative here because the positive shares three.
# With a positive that shares one label, it would be no negative.
#
# See also: [Mining](../guide/mining.md), [the API](../api/miners.md#mlmetric.miners.MultiLabelSemiHardMiner), and
# [What a similarity does to neighbours](similarity_and_neighbors.md).
