"""Imbalance report.

The report shows which labels are rare, and which of these occur together with frequent labels. Two labels with the same
number of rows can need different treatment: one is lost when rows with frequent labels are removed, the other is not.
The labels are synthetic.
"""

# %%
# Eight labels of 2,000 photographs. `lantern` and `fossil` are equally rare, but `lantern` occurs only together with
# `person`, and `fossil` only alone.

import numpy as np
from matplotlib import pyplot as plt

from mlmetric.imbalance import imbalance_report

names = ["person", "street", "car", "tree", "dog", "bicycle", "lantern", "fossil"]
frequencies = [0.7, 0.45, 0.3, 0.25, 0.1, 0.05, 0.03, 0.0]
rng = np.random.default_rng(0)
y = (rng.random((2000, 8)) < frequencies).astype(int)
y[:, 6] &= y[:, 0]
y[rng.choice(2000, y[:, 6].sum(), replace=False)] = np.eye(8, dtype=int)[7]
y[y.sum(axis=1) == 0, 3] = 1

report = imbalance_report(y, label_names=names)
print(report)

# %%
# IRLbl says how many times rarer a label is than the most frequent one; labels above the mean ratio (MeanIR) are
# minority labels. SCUMBLELbl is high for a label whose rows also have much more frequent labels.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained", sharey=True)
order = np.argsort(report.counts, kind="stable")
colours = np.where(report.is_minority, "#D55E00", "#0072B2")[order]
shown = [names[i] for i in order]
bars = left.barh(shown, report.counts[order], color=colours)
left.bar_label(bars, [f"{report.counts[i]:,} (IRLbl {report.ir_lbl[i]:.1f})" for i in order], padding=4)
left.set(xlabel="rows with the label", xlim=(0, 2200))
left.annotate("minority labels:\nIRLbl above MeanIR", (1150, 1), color="#D55E00", va="center")
bars = right.barh(shown, report.scumble_per_label[order], color=colours)
right.bar_label(bars, fmt="%.2f", padding=4)
right.set(xlabel="SCUMBLELbl: occurrence with frequent labels", xlim=(0, 0.75))
figure.suptitle("lantern and fossil are equally rare; only lantern occurs with frequent labels")

# %%
# Removing rows with `person` also removes rows with `lantern`, but none with `fossil`:
# [Undersampling](undersampling.md) shows what each sampler does to such labels.
#
# See also: [Measuring imbalance](../guide/imbalance.md), and
# [the API](../api/imbalance.md#mlmetric.imbalance.imbalance_report).
