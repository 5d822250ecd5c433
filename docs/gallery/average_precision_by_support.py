"""Average precision by support.

A mean over labels hides that rare labels are recognised less well and measured less precisely. Plot the average
precision (AP) of each label against its number of positives, with an interval. The images are composed of handwritten
digits from scikit-learn.
"""

# %%
# Three handwritten digits in each image; its labels are the digits that occur. 0 is the most frequent digit, 9 the
# rarest.

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from mlmetric.estimators import MetricClassifier
from mlmetric.metrics import average_precision, confidence_interval

digits, rng = load_digits(), np.random.default_rng(0)


def compose(rows: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose images of three digits, and their labels."""
    weights = 0.6 ** digits.target[rows]
    chosen = rng.choice(rows, (num_images, 3), p=weights / weights.sum())
    y = np.zeros((num_images, 10), dtype=int)
    y[np.arange(num_images)[:, None], digits.target[chosen]] = 1
    return digits.data[chosen].reshape(num_images, 192), y


train_digits, test_digits = np.split(rng.permutation(len(digits.target)), [1000])
X, y = compose(train_digits, 1000)
X_test, y_test = compose(test_digits, 1000)
classifier = MetricClassifier(n_members=1, max_epochs=15, random_state=0).fit(X, y)

# %%
# The intervals are bootstrap intervals over the test images.

scores = classifier.predict_proba(X_test)
generator = torch.Generator().manual_seed(0)
interval = confidence_interval(average_precision, scores, y_test, n_resamples=200, generator=generator)
ap, support = average_precision(scores, y_test).numpy(), y_test.sum(axis=0)
print(f"mAP {ap.mean():.3f}; five most frequent labels {ap[:5].mean():.3f}, five rarest {ap[5:].mean():.3f}")

figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
axes.vlines(support, interval.low, interval.high, color="#0072B2", alpha=0.4, linewidth=4)
axes.scatter(support, ap, color="#0072B2", s=45, zorder=3)
for digit in range(10):
    axes.annotate(
        str(digit), (support[digit], ap[digit]), xytext=(8, 0), textcoords="offset points", va="center", weight="bold"
    )
chance = np.geomspace(support.min(), support.max(), 50)
axes.plot(chance, chance / len(y_test), color="0.5", linestyle="--")
axes.annotate("random scores", (240, 0.2), color="0.4")
axes.axhline(ap.mean(), color="#D55E00", linewidth=1)
axes.annotate(
    f"mAP {ap.mean():.2f}",
    (support.max(), ap.mean()),
    xytext=(0, -14),
    textcoords="offset points",
    color="#D55E00",
    ha="right",
)
axes.set(
    xscale="log",
    ylim=(0, 1.03),
    xlabel=f"positives among {len(y_test):,} test images",
    ylabel="average precision, 95 % interval",
)
axes.set_xticks([10, 20, 50, 100, 200, 500], [10, 20, 50, 100, 200, 500])
axes.minorticks_off()
axes.set_title("Average precision of each digit by its number of positives")

# %%
# The mAP describes neither the frequent digits, which are nearly always found, nor the rare ones. The intervals of rare
# digits are wide: a difference between two models on digit 7 can be chance. Even the intervals do not include the
# variation that another training would cause.
#
# See also: [Metrics of labels and rankings](../guide/metrics.md), and
# [the API](../api/metrics.md#mlmetric.metrics.average_precision).
