"""Images with texts.

A classifier on two views uses the image where the text is missing, and both where it is not. The images are composed of
handwritten digits from scikit-learn, the texts are synthetic.
"""

# %%
# Each row has an image with three handwritten digits. Noise makes it hard to read. A text names each of these digits
# with a probability of 60 %; half of the rows have no text.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from mlmetric.data import join_views
from mlmetric.estimators import MetricClassifier, TextFeatures
from mlmetric.metrics import average_precision

digits, rng = load_digits(), np.random.default_rng(0)
words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def compose(rows: np.ndarray, num_images: int) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Compose images, texts and labels."""
    chosen = rng.choice(rows, (num_images, 3))
    y = np.zeros((num_images, 10), dtype=int)
    y[np.arange(num_images)[:, None], digits.target[chosen]] = 1
    images = digits.data[chosen].reshape(num_images, 192) + rng.normal(0, 6, (num_images, 192))
    named = [[words[digit] for digit in row.nonzero()[0] if rng.random() < 0.6] for row in y]
    return images, ["note: " + " ".join(row) if rng.random() < 0.5 else None for row in named], y


train_digits, test_digits = np.split(rng.permutation(len(digits.target)), [1200])
images, texts, y = compose(train_digits, 1000)
test_images, test_texts, y_test = compose(test_digits, 1000)
print(texts[:4])

# %%
# A row without text has NaN in the columns of the text. Each view is also trained alone.

text_features = TextFeatures().fit(texts)
X, views = join_views({"image": images, "text": text_features.transform(texts)})
X_test, _ = join_views({"image": test_images, "text": text_features.transform(test_texts)})
settings = {"n_members": 1, "max_epochs": 12, "random_state": 0}
both = MetricClassifier(views=views, **settings).fit(X, y)
image_only = MetricClassifier(**settings).fit(images, y)
with_text = np.array([text is not None for text in texts])
text_only = MetricClassifier(**settings).fit(X[with_text, views["text"]], y[with_text])

# %%
# The average precision of each digit, separately for test rows with and without text.

has_text = np.array([text is not None for text in test_texts])
shown = {"image": ("#0072B2", "o", 110), "text": ("#E69F00", "s", 40), "both": ("#D55E00", "D", 34)}
figure, panels = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained", sharex=True, sharey=True)
for axes, rows, title in zip(
    panels, (has_text, ~has_text), ("Test rows with text", "Test rows without text"), strict=True
):
    scores = {"image": image_only.predict_proba(test_images[rows]), "both": both.predict_proba(X_test[rows])}
    if rows is has_text:
        scores["text"] = text_only.predict_proba(X_test[rows, views["text"]])
    for name, (colour, marker, size) in shown.items():
        if name in scores:
            ap = average_precision(scores[name], y_test[rows]).numpy()
            face, label = "none" if name == "image" else colour, f"{name}: mAP {ap.mean():.2f}"
            axes.scatter(
                ap, range(10), facecolor=face, edgecolor=colour, marker=marker, s=size, linewidth=2, label=label
            )
    axes.set_yticks(range(10), words)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("average precision")
    axes.set_title(title, fontsize=11)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, columnspacing=1, handletextpad=0.2, fontsize=10
    )
figure.suptitle("Average precision of labels from image, text and both")

# %%
# With text, both views together are better than either for every digit. Without text, the default fusion gives the same
# ranking as the image alone: nothing is gained, and nothing lost.
#
# See also: [Images with texts](../guide/images_and_texts.md),
# [measurements on advertisements](../benchmarks/images_and_texts.md), and
# [the API](../api/data.md#mlmetric.data.join_views).
