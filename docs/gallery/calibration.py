"""Calibration.

Naive Bayes is far too confident; three methods of calibration correct this to different degrees. A probability is
calibrated if, of the entries predicted with 0.3, 30 % are positive. The data are synthetic.
"""

# %%
# Eight labels whose features are repeated: naive Bayes counts the same evidence five times.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB

from mlmetric.decisions import MultiLabelCalibratedClassifier
from mlmetric.metrics import calibration_error, mean_average_precision, reliability_curve

rng = np.random.default_rng(0)
X = np.repeat(rng.normal(size=(6000, 8)), 5, axis=1)
y = (X[:, ::5] + rng.normal(size=(6000, 8)) > np.linspace(0, 2, 8)).astype(int)
X, y, X_test, y_test = X[:2000], y[:2000], X[2000:], y[2000:]

# %%
# The calibration is fitted on out-of-fold scores of the training rows.

classifier = OneVsRestClassifier(GaussianNB())
probabilities = {"uncalibrated": classifier.fit(X, y).predict_proba(X_test)}
for method in ("temperature", "platt", "isotonic"):
    calibrated = MultiLabelCalibratedClassifier(classifier, method=method, random_state=0).fit(X, y)
    probabilities[method] = calibrated.predict_proba(X_test)

# %%
# The curve of a calibrated classifier is the diagonal. The bars show the share of the entries with such a probability.

figure, panels = plt.subplots(
    2, 4, figsize=(10, 4.4), layout="constrained", sharex=True, sharey="row", height_ratios=[3, 1]
)
for (axes, bars), (name, values) in zip(panels.T, probabilities.items(), strict=True):
    curve = reliability_curve(values, y_test, n_bins=10)
    error = float(calibration_error(values, y_test, n_bins=10))
    mean_ap = float(mean_average_precision(values, y_test))
    print(f"{name:12} calibration error {error:.3f}, mAP {mean_ap:.3f}")
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--")
    axes.plot(curve.mean_predicted[0], curve.positive_rate[0], marker="o", color="#0072B2")
    axes.set_title(f"{name}\ncalibration error {error:.3f}", fontsize=11)
    axes.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    bars.bar(np.linspace(0.05, 0.95, 10), curve.counts[0] / curve.counts[0].sum(), width=0.09, color="0.7")
panels[0, 0].set_ylabel("share of positives")
panels[1, 0].set_ylabel("entries")
for bars in panels[1]:
    bars.set_xlabel("probability")
figure.suptitle("Reliability of naive Bayes before and after calibration")

# %%
# One parameter (`"temperature"`) is not enough here: the frequencies are wrong as well. `"platt"` and `"isotonic"`
# correct both. The ranking does not improve: mAP stays the same, and `"isotonic"` lowers it, because it gives many rows
# the same probability.
#
# See also: [Calibrated probabilities](../guide/calibration.md), [results on real data](../benchmarks/decisions.md), and
# [the API](../api/decisions.md#mlmetric.decisions.MultiLabelCalibratedClassifier).
