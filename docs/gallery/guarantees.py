"""Guarantees.

`conformal_fnr_threshold` bounds the mean share of true labels that are missed, `ltt_fdr_threshold` the mean share of
predicted labels that are wrong. The histograms show what this means for a single calibration set. The data are
synthetic.
"""

# %%
# Scores of a classifier for 9,000 rows that it was not trained on.

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mlmetric.decisions import conformal_fnr_threshold, ltt_fdr_threshold

X, y = make_multilabel_classification(n_samples=10000, n_classes=6, n_labels=2, allow_unlabeled=False, random_state=0)
model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(X[:1000], y[:1000])
scores, labels = torch.from_numpy(model.predict_proba(X[1000:])), torch.from_numpy(y[1000:])

# %%
# 300 times, 500 random rows choose the thresholds, and all others show the rates.


def missed(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Compute the mean share of true labels that are missed."""
    return ((true * ~predicted).sum(1) / true.sum(1)).mean().item()


def wrong(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Compute the mean share of predicted labels that are wrong."""
    return (((1 - true) * predicted).sum(1) / predicted.sum(1).clamp(min=1)).mean().item()


alpha, generator = 0.1, torch.Generator().manual_seed(0)
rates, counts = {"missed": [], "wrong": []}, {"missed": [], "wrong": []}
for _ in range(300):
    calibration, new = torch.randperm(len(scores), generator=generator).split([500, 8500])
    few_missed = conformal_fnr_threshold(scores[calibration], labels[calibration], alpha=alpha)
    few_wrong = ltt_fdr_threshold(scores[calibration], labels[calibration], alpha=alpha, delta=0.1)
    for name, rate, threshold in (("missed", missed, few_missed), ("wrong", wrong, few_wrong)):
        predicted = scores[new] >= threshold
        rates[name].append(rate(predicted, labels[new]))
        counts[name].append(predicted.sum(1).double().mean().item())

# %%
# Each histogram shows the rates of the 300 calibration sets.

titles = {"missed": "conformal_fnr_threshold: labels missed", "wrong": "ltt_fdr_threshold: labels wrong"}
figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained", sharex=True, sharey=True)
for axes, (name, values) in zip(panels, rates.items(), strict=True):
    within = np.mean(np.array(values) <= alpha)
    for shown, colour in ((lambda v: v <= alpha, "#0072B2"), (lambda v: v > alpha, "#D55E00")):
        axes.hist([v for v in values if shown(v)], bins=np.arange(0.04, 0.14, 0.004), color=colour)
    axes.axvline(alpha, color="black", linestyle="--")
    axes.axvline(np.mean(values), color="0.4")
    facts = [
        f"mean {np.mean(values):.3f}",
        f"at most alpha in {within:.1%}",
        f"{np.mean(counts[name]):.1f} labels predicted",
    ]
    axes.text(0.02, 0.98, "\n".join(facts), transform=axes.transAxes, va="top", backgroundcolor="white")
    axes.set_title(titles[name], fontsize=11)
    axes.set_xlabel(f"share of labels {name} on new rows")
    print(f"{name:6} mean {np.mean(values):.4f}, at most {alpha} in {within:.1%} of the calibration sets")
panels[0].set_ylabel("calibration sets")
figure.suptitle("Rates on new rows for alpha = 0.1 (dashed) and 500 calibration rows")

# %%
# The bound on missed labels holds for the mean: in about four of ten calibration sets the rate is above `alpha`. The
# bound on wrong labels is stricter: at most one calibration set in ten (`delta`) may be above `alpha`, and here hardly
# any is. Both have a price. A row has 2.3 labels on average; to miss few, 3.3 are predicted, and to have few wrong
# ones, 1.1.
#
# See also: [Guarantees](../guide/guarantees.md), with what is not guaranteed, and
# [the API](../api/decisions.md#mlmetric.decisions.conformal_fnr_threshold).
