"""Finding label errors.

Errors in annotations are found faster if the most suspicious ones are reviewed first. Labels of images are flipped
here, to see how many of these errors a review finds. The images are composed of handwritten digits from scikit-learn.
"""

# %%
# Three handwritten digits in each of 1,000 images; the labels are the digits that occur. 3 % of the entries are
# flipped.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.estimators import MetricClassifier
from mlmetric.label_errors import rank_label_errors

digits, rng = load_digits(), np.random.default_rng(0)
chosen = rng.integers(0, len(digits.target), (1000, 3))
images = digits.images[chosen].transpose(0, 2, 1, 3).reshape(1000, 8, 24)
true = np.zeros((1000, 10), dtype=int)
true[np.arange(1000)[:, None], digits.target[chosen]] = 1
y = np.where(rng.random(true.shape) < 0.03, 1 - true, true)

# %%
# Evidence: the probabilities of models that were not trained on the row, and the labels of similar rows.

X = images.reshape(1000, 192) / 16
folds = MultiLabelStratifiedKFold(3, shuffle=True, random_state=0)
model = MetricClassifier(n_members=1, max_epochs=10, random_state=0)
probabilities = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
evidence = {
    "model": {"probabilities": probabilities},
    "similar images": {"embeddings": X},
    "both": {"probabilities": probabilities, "embeddings": X},
}
errors = {name: rank_label_errors(y, **options, label_names=list("0123456789")) for name, options in evidence.items()}
print(errors["model"].summary(3))

# %%
# Every 25th entry of the list from both kinds of evidence. Orange captions are false alarms: correct annotations.

is_flipped = y != true
found = errors["both"]
figure, panels = plt.subplots(3, 4, figsize=(9.5, 4.6), layout="constrained")
for place, axes in enumerate(panels.flat):
    row, label, given = (values[25 * place] for values in (found.rows, found.labels, found.given))
    axes.imshow(images[row], cmap="gray_r")
    colour = "#0072B2" if is_flipped[row, label] else "#D55E00"
    axes.set_title(
        f"{25 * place + 1}: {label} {'wrong' if given else 'missing'}", color=colour, fontsize=11, weight="bold"
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="0.8")
figure.suptitle("Suspicious labels: place in the list, label, suspected error")

# %%
# How many of the flipped entries a review of the first n finds.

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
reviewed = np.arange(1, 601)
styles = {"model": ("#0072B2", 7), "similar images": ("#E69F00", 0), "both": ("#D55E00", -7)}
for name, (colour, shift) in styles.items():
    found = errors[name]
    share = is_flipped[found.rows, found.labels][:600].cumsum() / is_flipped.sum()
    axes.plot(reviewed, share, color=colour)
    axes.annotate(name, (600, share[-1]), xytext=(8, shift), textcoords="offset points", color=colour, va="center")
    print(f"{name:15} {share[is_flipped.sum() - 1]:.2f} of the errors found in {is_flipped.sum()} entries")
axes.plot(reviewed, reviewed / y.size, color="0.5", linestyle="--")
axes.annotate("random order", (600, 600 / y.size), xytext=(8, 0), textcoords="offset points", color="0.4", va="center")
axes.set(xlabel=f"entries reviewed, of {y.size:,}", ylabel="share of the errors found", xlim=(0, 800), ylim=(0, 1))
axes.set_title("Label errors found by the number of entries reviewed")

# %%
# After 283 entries, as many as there are errors, both kinds of evidence together have found 61 % of them; a review in
# random order would have found 3 %. Later in the list most entries are false alarms, so do not accept suggestions
# without a review. The estimated number of errors is too large, because the model is inaccurate.
#
# See also: [Finding label errors](../guide/label_errors.md), and
# [the API](../api/label_errors.md#mlmetric.label_errors.rank_label_errors).
