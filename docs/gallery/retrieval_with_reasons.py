"""Retrieval with reasons.

Find the nearest images of a query, and see which labels make each of them similar to it. The images are composed of
handwritten digits from scikit-learn.
"""

# %%
# Each image shows three handwritten digits; its labels are the digits that occur. The embedding is trained on 1,500
# images; queries are composed of other digits.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from mlmetric.estimators import MetricEmbedder
from mlmetric.search import SearchIndex, explain_hits

digits, rng = load_digits(), np.random.default_rng(0)


def compose(rows: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose images of three digits, and their labels."""
    chosen = rng.choice(rows, (num_images, 3))
    y = np.zeros((num_images, 10), dtype=int)
    y[np.arange(num_images)[:, None], digits.target[chosen]] = 1
    return digits.images[chosen].transpose(0, 2, 1, 3).reshape(num_images, 8, 24), y


train_digits, test_digits = np.split(rng.permutation(len(digits.target)), [1200])
images, y = compose(train_digits, 1500)
query_images, query_y = compose(test_digits, 4)

embedder = MetricEmbedder(n_members=1, max_epochs=15, random_state=0).fit(images.reshape(len(images), -1), y)
index = SearchIndex(label_names=[str(digit) for digit in range(10)])
index.add(embedder.transform(images.reshape(len(images), -1)), ids=range(len(images)), labels=y)

# %%
# `explain_hits` divides the Jaccard similarity of the label sets among the labels: labels of both images have positive
# shares, labels of one of them negative shares.

hits = index.search(embedder.transform(query_images.reshape(4, -1)), k=4, labels=query_y)
shares = explain_hits(index, hits, query_y)
for hit, share in zip(hits[0], shares[0], strict=True):
    print(f"image {hit.id}: Jaccard {sum(share.values()):.2f} = {', '.join(f'{d} {s:+.2f}' for d, s in share.items())}")

# %%
# Above each hit are the labels it shares with the query (blue), those that only one of the two has (orange), and the
# similarity.

figure, panels = plt.subplots(4, 5, figsize=(10, 4.9), layout="constrained", gridspec_kw={"wspace": 0.06})
for row, (found, reasons) in enumerate(zip(hits, shares, strict=True)):
    panels[row, 0].imshow(query_images[row], cmap="gray_r")
    panels[row, 0].set_title("query: " + " ".join(map(str, query_y[row].nonzero()[0])), fontsize=11, weight="bold")
    for axes, hit, share in zip(panels[row, 1:], found, reasons, strict=True):
        axes.imshow(images[hit.id], cmap="gray_r")
        shared = " ".join(sorted(label for label, value in share.items() if value > 0))
        other = " ".join(sorted(label for label, value in share.items() if value < 0))
        axes.set_title(shared, loc="left", color="#0072B2", fontsize=11, weight="bold")
        axes.set_title(other, loc="center", color="#D55E00", fontsize=11, weight="bold")
        axes.set_title(f"{sum(share.values()):.2f}", loc="right", fontsize=11)
for axes in panels.flat:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="0.8")
figure.suptitle("Queries and their nearest images: shared labels, other labels, similarity")

# %%
# Two digits in common are not always the best possible answer: the index may contain images with all three. The orange
# digits show where the embedding confuses them.
#
# See also: [Search](../guide/search.md), [the API](../api/search.md#mlmetric.search.explain_hits), and
# [Search an index](search.md), which measures how good the found images are.
