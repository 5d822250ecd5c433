"""Oversampling.

MLSMOTE and MLSOL add synthetic rows between neighbours. On two features it is visible where they put them, and which
labels the new rows get. The data are synthetic.
"""

# %%
# Three groups of rows: most have only the label `common`, 20 only `rare`, and 12 both, in between.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mlmetric.imbalance import mean_ir
from mlmetric.metrics import average_precision
from mlmetric.over_sampling import MLSMOTE, MLSOL

rng = np.random.default_rng(0)


def make_rows(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate rows, a multiple of 182."""
    sizes = np.array([150, 20, 12]) * scale
    centres, widths = np.repeat([[0, 0], [4, 1.5], [2.4, 1]], sizes, axis=0), np.repeat([1.1, 0.6, 0.4], sizes)
    return rng.normal(centres, widths[:, None]), np.repeat([[1, 0], [0, 1], [1, 1]], sizes, axis=0)


X, y = make_rows(1)

# %%
# Lines lead from each new row to the two rows that it lies between: `parent_indices_`.

colours = {(1, 0): "#0072B2", (0, 1): "#D55E00", (1, 1): "#009E73", (0, 0): "0.5"}
kinds = {(1, 0): "common", (0, 1): "rare", (1, 1): "both", (0, 0): "neither"}
figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.8), layout="constrained", sharex=True, sharey=True)
for axes, sampler in zip(panels, (MLSMOTE(random_state=0), MLSOL(percentage=30, random_state=0)), strict=True):
    X_more, y_more = sampler.fit_resample(X, y)
    name, num_new = type(sampler).__name__, len(y_more) - len(y)
    for parents in sampler.parent_indices_:
        axes.plot(*X[parents].T, color="0.85", linewidth=0.8, zorder=1)
    for kind, colour in colours.items():
        of_kind = (y_more == kind).all(axis=1)
        old, new = X_more[: len(y)][of_kind[: len(y)]], X_more[len(y) :][of_kind[len(y) :]]
        axes.scatter(*old.T, s=14, color=colour, alpha=0.5, zorder=2)
        axes.scatter(*new.T, s=48, facecolor="none", edgecolor=colour, linewidth=1.6, zorder=3)
    axes.set_title(f"{name}: {num_new} rows added, MeanIR {mean_ir(y):.2f} to {mean_ir(y_more):.2f}", fontsize=11)
    axes.set(xticks=[], yticks=[], xlabel="feature 1")
panels[0].set_ylabel("feature 2")
for at, kind in (((-1.6, 2.9), (1, 0)), ((4.2, 3.2), (0, 1)), ((2.4, 2.35), (1, 1))):
    panels[0].annotate(kinds[kind], at, color=colours[kind], fontsize=12, weight="bold", ha="center")
figure.suptitle("Rows before (dots) and added by oversampling (rings)")

# %%
# Does a classifier benefit? The average precision of `rare` on 9,100 other rows, mean of 20 draws:

X_test, y_test = make_rows(50)
scores = {"no oversampling": [], "MLSMOTE": [], "MLSOL": []}
for seed in range(20):
    X, y = make_rows(1)
    resampled = [(X, y), *(s(random_state=seed).fit_resample(X, y) for s in (MLSMOTE, MLSOL))]
    for values, rows in zip(scores.values(), resampled, strict=True):
        model = OneVsRestClassifier(LogisticRegression()).fit(*rows)
        values.append(average_precision(model.predict_proba(X_test), y_test)[1].item())
for name, values in scores.items():
    print(f"{name:16} {np.mean(values):.4f}, standard deviation {np.std(values):.4f}")

# %%
# It does not benefit here: the average precision of `rare` is the same within the standard deviations. The new rows lie
# between rows that the classifier already has. MLSMOTE puts them near rows with minority labels only; MLSOL also puts
# rows with both labels far into the frequent group.
#
# See also: [Oversampling](../guide/oversampling.md), [results on real data](../benchmarks/sampling.md), and
# [the API](../api/over_sampling.md).
