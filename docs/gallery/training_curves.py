"""Training curves.

The validation scores of each epoch show whether training is long enough. Retrieval and classification are often best at
different epochs, so `MetricClassifier` keeps the best epoch of each. The images are composed of handwritten digits from
scikit-learn.
"""

# %%
# Each image shows three handwritten digits side by side; its labels are the digits that occur.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from mlmetric.estimators import MetricClassifier
from mlmetric.metrics import mean_average_precision, ndcg_at_k

digits, rng = load_digits(), np.random.default_rng(0)


def compose(rows: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose images of three digits, and their labels."""
    chosen = rng.choice(rows, (num_images, 3))
    y = np.zeros((num_images, 10), dtype=int)
    y[np.arange(num_images)[:, None], digits.target[chosen]] = 1
    return digits.data[chosen].reshape(num_images, 192), y


train_digits, test_digits = np.split(rng.permutation(len(digits.target)), [1200])
X, y = compose(train_digits, 400)
X_test, y_test = compose(test_digits, 800)

# %%
# The default settings average the weights over steps (`ema_decay`) and mix images (`mixup`). A second classifier does
# without. Each of two members sets a fifth of the training images aside; `history_` begins with a list of records for
# each member, one for each epoch.

settings = {"n_members": 2, "max_epochs": 30, "random_state": 0}
classifiers = {
    "default settings": MetricClassifier(**settings).fit(X, y),
    "ema_decay=0, mixup=0": MetricClassifier(**settings, ema_decay=0, mixup=0).fit(X, y),
}
record = classifiers["default settings"].history_[0][-1]
print(", ".join(f"{key} {value:.3g}" for key, value in record.items()))
for name, classifier in classifiers.items():
    mean_ap = mean_average_precision(classifier.predict_proba(X_test), y_test)
    ndcg = ndcg_at_k(classifier.transform(X_test), y_test, classifier.transform(X), y)
    print(f"{name:20} test mAP {mean_ap:.3f}, test NDCG@10 {ndcg:.3f}")

# %%
# Lines of one colour are the members. Dots mark the epochs whose weights are kept.

figure, panels = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
titles = {
    "loss": "training loss",
    "val_map": "validation mAP (labels)",
    "val_ndcg_at_10": "validation NDCG@10 (retrieval)",
}
for axes, (key, title) in zip(panels, titles.items(), strict=True):
    for (name, classifier), colour in zip(classifiers.items(), ("#0072B2", "#D55E00"), strict=True):
        for history in classifier.history_[:2]:
            values = [record[key] for record in history]
            axes.plot(range(1, 31), values, color=colour, label=name if history is classifier.history_[0] else None)
            if key != "loss":
                best = int(np.argmax(values))
                axes.plot(best + 1, values[best], "o", color=colour, markersize=9)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("epoch")
panels[0].legend()
figure.suptitle("Loss and validation scores over the epochs")

# %%
# Most of the gain comes in the first 10 to 15 epochs. Without averaging and mixup the training loss is far lower, but
# the validation mAP is not higher: choose the number of epochs by validation scores, not by the loss. On these images
# the default settings have no clear advantage. Their mAP is about equal, and their retrieval slightly worse.
#
# See also: [Embeddings and labels](../guide/classifier.md),
# [how the default settings were chosen](../benchmarks/recipe.md), and
# [the API](../api/estimators.md#mlmetric.estimators.MetricClassifier).
