"""Search an index.

Fill, save, load and search an index, and compare the results by pixels and by a trained embedding. The images are
composed of handwritten digits from scikit-learn.
"""

# %%
# Three handwritten digits in each image; its labels are the digits that occur.

import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from mlmetric.estimators import MetricEmbedder
from mlmetric.metrics import ndcg_at_k
from mlmetric.search import SearchIndex

digits, rng = load_digits(), np.random.default_rng(0)


def compose(rows: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose images of three digits, and their labels."""
    chosen = rng.choice(rows, (num_images, 3))
    y = np.zeros((num_images, 10), dtype=int)
    y[np.arange(num_images)[:, None], digits.target[chosen]] = 1
    return digits.data[chosen].reshape(num_images, 192), y


train_digits, test_digits = np.split(rng.permutation(len(digits.target)), [1200])
X, y = compose(train_digits, 1500)
queries, query_labels = compose(test_digits, 400)
embedder = MetricEmbedder(n_members=1, max_epochs=12, random_state=0).fit(X, y)

# %%
# Fill an index, save it, load it, and search it. Without label names, the labels are the numbers of the columns.

index = SearchIndex()
index.add(embedder.transform(X), ids=[f"{row}.png" for row in range(len(X))], labels=y)
with tempfile.TemporaryDirectory() as folder:
    index.save(Path(folder) / "index")
    index = SearchIndex.load(Path(folder) / "index")
    print(index)
    print("query:", [str(label) for label in query_labels[0].nonzero()[0]])
    for hit in index.search(embedder.transform(queries[:1]), k=3, labels=query_labels[:1])[0]:
        print(f"{hit.id:9} distance {hit.distance:.2f}, labels {hit.labels}, shared {list(hit.shared)}")

# %%
# NDCG@k: the Jaccard similarity of the first k rows to the query, the first rows with more weight, relative to the best
# possible ranking.

representations = {
    "trained embedding": (embedder.transform(queries), embedder.transform(X), "#0072B2"),
    "pixels": (queries, X, "#D55E00"),
    "random order": (rng.normal(size=(400, 8)), rng.normal(size=(1500, 8)), "0.5"),
}
counts = [1, 2, 5, 10, 20, 50, 100]
figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, (rows, refs, colour) in representations.items():
    values = [float(ndcg_at_k(rows, query_labels, refs, y, k=k)) for k in counts]
    axes.plot(counts, values, marker="o", color=colour)
    axes.annotate(name, (counts[-1], values[-1]), xytext=(8, 0), textcoords="offset points", color=colour, va="center")
axes.set(xscale="log", xlabel="rows found (k)", ylabel="NDCG@k", ylim=(0, 1), xlim=(0.9, 420))
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.set_title("Nearest images by pixels and by a trained embedding")

# %%
# The embedding finds more similar images than the pixels at every k. The search itself is exact in both cases: what
# differs is the representation.
#
# See also: [Search](../guide/search.md), [retrieval metrics](../guide/retrieval_metrics.md), and
# [the API](../api/search.md#mlmetric.search.SearchIndex).
