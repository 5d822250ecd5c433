"""Thresholds on out-of-fold scores: F1, recall and number of predictions of each rule on test rows.

python tests/benchmarks/thresholds.py --data FOLDER [--sets NAME ...]   # .npz files there with X, Y and the first rows
python tests/benchmarks/thresholds.py --quick                           # smoke test on a synthetic set

A set has the features X, the labels Y and `n_train` or `n_development`, the number of rows to train on; the rows after
these are for testing. A logistic regression for each label, on standardised features and with the defaults of
scikit-learn, is fitted on five stratified folds of the training rows, shuffled by the seed, and on all of them. Each
rule chooses on the scores of the folds.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from markdown_table import print_table
from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.decisions import FBeta, MinPrecision, MinRecall, MultiLabelThresholdClassifier, PredictedCount, TopK

Array = npt.NDArray[Any]
RECALL = 0.9
RARE = 50
"""Labels with fewer training rows are rare."""


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its scores, so that all rules share the same fits."""

    def fit(self, X: Array, y: Array) -> Self:
        """Do nothing."""
        self.classes_ = np.tile([0, 1], (y.shape[1], 1))
        return self

    def predict_proba(self, X: Array) -> Array:
        """Return the features."""
        return X


class Data(NamedTuple):
    """Scores of the training rows, by classifiers that were not fitted on them, and of the test rows; their labels."""

    scores: Array
    labels: Array
    test_scores: Array
    test_labels: Array
    splits: list[tuple[Array, Array]]


def read_sets(folder: Path | None, names: list[str] | None) -> Iterator[tuple[str, Array, Array, int]]:
    """Read data sets from a folder, or make a small synthetic one."""
    if folder is None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(160, 6))
        y = (X @ rng.normal(size=(6, 3)) + rng.normal(size=(160, 3)) > [-1, 1, 2.5]).astype(np.int64)
        yield "synthetic", X, y, 120
        return
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            if "X" in data and (names is None or path.stem in names):
                num_train = int(data["n_train" if "n_train" in data else "n_development"])
                yield path.stem, data["X"].astype(np.float64), data["Y"].astype(np.int64), num_train


def score(X: Array, y: Array, num_train: int, seed: int) -> Data:
    """Fit the classifiers of all folds, and of all training rows."""
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=1000)))
    train, labels = X[:num_train], y[:num_train]
    splits = list(MultiLabelStratifiedKFold(5, shuffle=True, random_state=seed).split(train, labels))
    scores = cross_val_predict(model, train, labels, cv=splits, method="predict_proba")
    test_scores = model.fit(train, labels).predict_proba(X[num_train:])
    return Data(scores, labels, test_scores, y[num_train:], splits)


def rules(labels: Array) -> dict[str, dict[str, Any]]:
    """Return the settings of each rule; `TopK` has the mean number of labels of the training rows, rounded."""
    k = max(1, round(float(labels.sum(axis=1).mean())))
    return {
        "`average=\"macro\"`": {},
        "`average=\"macro\", shrinkage=10`": {"shrinkage": 10.0},
        "`average=\"macro\", max_predicted=1.5`": {"max_predicted": 1.5},
        "`average=\"micro\"`": {"average": "micro"},
        "`average=\"micro\", per_label=False`": {"average": "micro", "per_label": False},
        "`FBeta(2)`": {"metric": FBeta(2)},
        f"`MinRecall({RECALL})`": {"metric": MinRecall(RECALL)},
        "`MinPrecision(0.7)`": {"metric": MinPrecision(0.7)},
        f"`TopK({k})`": {"metric": TopK(k)},
        "`PredictedCount()`": {"metric": PredictedCount()},
    }  # fmt: skip


def evaluate(predicted: Array, truth: Array) -> list[float]:
    """Compute the figures of a row of the table."""
    with_positives = truth.any(axis=0)
    recalls = recall_score(truth, predicted, average=None, zero_division=0)[with_positives]
    return [
        f1_score(truth, predicted, average="macro", zero_division=0),
        f1_score(truth, predicted, average="micro", zero_division=0),
        predicted.sum() / truth.sum(),
        accuracy_score(truth, predicted),
        recalls.mean(),
        100 * (recalls >= RECALL).mean(),
    ]


def cells(results: list[list[float]]) -> list[str]:
    """Format the means over the seeds."""
    means = [statistics.fmean(values) for values in zip(*results, strict=True)]
    digits = (3, 3, 2, 3, 2, 0)
    return [f"{mean:.{places}f}" for mean, places in zip(means, digits, strict=True)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--sets", nargs="+", help="names of the sets; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a synthetic data set, one seed")
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("give --data FOLDER, or --quick for a smoke test")
    warnings.filterwarnings("ignore", message="No threshold meets")
    warnings.filterwarnings("ignore", message="Label (not )?.* is present in all training examples")
    spreads: list[list[str]] = []
    for name, X, y, num_train in read_sets(None if options.quick else options.data, options.sets):
        seeds = range(1 if options.quick else options.seeds)
        data = [score(X, y, num_train, seed) for seed in seeds]
        print(f"\n{name}: {num_train} training rows, {len(X) - num_train} test rows, {y.shape[1]} labels; ", end="")
        print(f"means of {len(seeds)} seeds")
        heads = [
            "macro F1",
            "overall F1",
            "predicted / true",
            "subset accuracy",
            "mean recall",
            "labels >= 0.9, %",
        ]
        rows = [["0.5", *cells([evaluate((d.test_scores >= 0.5).astype(int), d.test_labels) for d in data])]]
        spread: list[Array] = []
        for title, settings in rules(y[:num_train]).items():
            models = [
                MultiLabelThresholdClassifier(Scores(), cv=d.splits, **settings).fit(d.scores, d.labels) for d in data
            ]
            results = [evaluate(m.predict(d.test_scores), d.test_labels) for m, d in zip(models, data, strict=True)]
            rows.append([title, *cells(results)])
            if not settings or "shrinkage" in settings:
                spread.append(np.nanmean([model.threshold_spread_ for model in models], axis=0))
        print_table(["rule", *heads], rows)
        rare = y[:num_train].sum(axis=0) < RARE
        for group, members in ((f"fewer than {RARE}", rare), (f"{RARE} or more", ~rare)):
            if members.any():
                means = [f"{values[members].mean():.3f}" for values in spread]
                spreads.append([name, group, str(int(members.sum())), *means])
    print("\nMean standard deviation of the thresholds of five folds")
    print_table(["set", "positives", "labels", "macro", "shrinkage=10"], spreads, num_text=2)


if __name__ == "__main__":
    main()
