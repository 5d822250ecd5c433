"""Undersampling before and after.

Five undersamplers are compared: how many rows each label loses, and whether a classifier benefits. The data are
synthetic.
"""

# %%
# Ten labels. The frequency of a label falls by 35 % from one label to the next.

import warnings

import numpy as np
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mlmetric.imbalance import mean_ir
from mlmetric.metrics import mean_average_precision
from mlmetric.under_sampling import MLRUS, LabelCapUnderSampler, MultiLabelTomekLinks, RandomLabelUnderSampler

rng = np.random.default_rng(0)
directions = rng.normal(size=(10, 20))


def make_rows(num_rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Generate features and labels."""
    y = (rng.random((num_rows, 10)) < 0.6 * 0.65 ** np.arange(10)).astype(int)
    y[y.sum(axis=1) == 0, 0] = 1
    return y @ directions + 2.5 * rng.normal(size=(num_rows, 20)), y


# %%
# Each sampler resamples the training rows of five draws. A logistic regression for each label is then scored on 3,000
# other rows.

samplers = {
    "no undersampling": None,
    "LabelCapUnderSampler": LabelCapUnderSampler(random_state=0),
    "RandomLabelUnderSampler": RandomLabelUnderSampler(random_state=0),
    "MLRUS": MLRUS(random_state=0),
    "MultiLabelTomekLinks": MultiLabelTomekLinks(),
    "MultiLabelTomekLinks, rare kept": MultiLabelTomekLinks(protect_minority=True),
}
X_test, y_test = make_rows(3000, rng)
scores, first = {name: [] for name in samplers}, {}
warnings.simplefilter("ignore")  # Tomek links warn that the imbalance increased
for _ in range(5):
    X, y = make_rows(1200, rng)
    for name, sampler in samplers.items():
        X_kept, y_kept = (X, y) if sampler is None else sampler.fit_resample(X, y)
        model = OneVsRestClassifier(LogisticRegression(C=0.1)).fit(X_kept, y_kept)
        scores[name].append(float(mean_average_precision(model.predict_proba(X_test), y_test)))
        first.setdefault(name, (y, y_kept))
for name, values in scores.items():
    print(f"{name:32} mAP {np.mean(values):.3f}, standard deviation {np.std(values):.3f}")

# %%
# Counts of the first draw, on a logarithmic scale. `protect_minority=True` keeps the rows with rare labels.

figure, panels = plt.subplots(2, 3, figsize=(10, 6), layout="constrained", sharex=True, sharey=True)
for axes, (name, (y, y_kept)) in zip(panels.flat, first.items(), strict=True):
    before, after = y.sum(axis=0), y_kept.sum(axis=0)
    axes.vlines(range(10), after, before, color="0.8", linewidth=3)
    axes.scatter(range(10), before, s=50, facecolor="white", edgecolor="0.5", zorder=2)
    axes.scatter(range(10), after, s=34, color="#0072B2", zorder=3)
    facts = f"{len(y_kept):,} of {len(y):,} rows\nMeanIR {mean_ir(y_kept):.1f}\nmAP {np.mean(scores[name]):.3f}"
    axes.text(0.98, 0.98, facts, transform=axes.transAxes, ha="right", va="top")
    axes.set_title(name, fontsize=11)
    axes.set(yscale="log", ylim=(0.8, 2000), xticks=[])
for axes in panels[1]:
    axes.set_xlabel("labels, most frequent first")
for axes in panels[:, 0]:
    axes.set_ylabel("rows with the label")
figure.suptitle("Counts before (rings) and after (blue) undersampling")

# %%
# Here no undersampler improves the classifier. `LabelCapUnderSampler` halves MeanIR without removing a row, and its mAP
# is within the standard deviation. The samplers that remove rows lower the mAP, most of all Tomek links, which remove
# three quarters of the rows and all rows of one label. A lower MeanIR does not make a better classifier: compare with
# no undersampling, on validation rows.
#
# See also: [Undersampling](../guide/undersampling.md), [results on real data](../benchmarks/sampling.md), and
# [the API](../api/under_sampling.md).
