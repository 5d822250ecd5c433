"""Thresholds on out-of-fold scores: F1, recall and number of predictions of each rule on test rows.

python tests/benchmarks/thresholds.py --data FOLDER [--sets NAME ...]   # .npz files there with X and Y
python tests/benchmarks/thresholds.py --quick                           # smoke test on a synthetic set

A set has the features X and the labels Y. Each seed splits the rows, 70 % to train on, stratified. A logistic
regression for each label, on standardised features and with the defaults of scikit-learn, is fitted on five stratified
folds of the training rows, and on all of them. Each rule chooses on the scores of the folds. The tables have the mean
over the seeds, and the standard deviation in brackets. `TopK` has the mean number of labels of the training rows,
rounded.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, recall_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlmetric.data import MultiLabelStratifiedKFold, stratified_split
from mlmetric.decisions import FBeta, MinPrecision, MinRecall, MultiLabelThresholdClassifier, PredictedCount, TopK
from result_tables import ResultTables, add_write_option

Array = npt.NDArray[Any]
RECALL = 0.9
SPREAD = ('`average="macro"`', '`average="macro", shrinkage=10`')
"""Rules whose spread over the folds is shown."""
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


def read_sets(folder: Path | None, names: list[str] | None) -> Iterator[tuple[str, Array, Array]]:
    """Read data sets from a folder, or make a small synthetic one."""
    if folder is None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(160, 6))
        y = (X @ rng.normal(size=(6, 3)) + rng.normal(size=(160, 3)) > [-1, 1, 2.5]).astype(np.int64)
        yield "synthetic", X, y
        return
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            if "X" in data and (names is None or path.stem in names):
                yield path.stem, data["X"].astype(np.float64), data["Y"].astype(np.int64)


def score(X: Array, y: Array, seed: int) -> Data:
    """Fit the classifiers of all folds, and of all training rows of a split."""
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=1000)))
    rows, test = stratified_split(y, (0.7, 0.3), generator=torch.Generator().manual_seed(seed))
    train, labels = X[rows], y[rows]
    splits = list(MultiLabelStratifiedKFold(5, shuffle=True, random_state=seed).split(train, labels))
    scores = cross_val_predict(model, train, labels, cv=splits, method="predict_proba")
    return Data(scores, labels, model.fit(train, labels).predict_proba(X[test]), y[test], splits)


def rules(labels: Array) -> dict[str, dict[str, Any]]:
    """Return the settings of each rule."""
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
        "`TopK(k)`": {"metric": TopK(k)},
        "`PredictedCount()`": {"metric": PredictedCount()},
    }  # fmt: skip


MEASURES = (
    "macro F1",
    "overall F1",
    "labels predicted / true",
    "mean recall of the labels",
    "labels with a recall >= 0.9",
)


def evaluate(predicted: Array, truth: Array) -> list[float]:
    """Compute the measures of predictions."""
    recalls = recall_score(truth, predicted, average=None, zero_division=0)[truth.any(axis=0)]
    return [
        f1_score(truth, predicted, average="macro", zero_division=0),
        f1_score(truth, predicted, average="micro", zero_division=0),
        predicted.sum() / truth.sum(),
        recalls.mean(),
        (recalls >= RECALL).mean(),
    ]


def compare(name: str, X: Array, y: Array, num_seeds: int) -> tuple[dict[str, Array], list[list[str]]]:
    """Return the measures of each rule on a set, `(measures, seeds)`, and rows of the table of spreads."""
    splits = [score(X, y, seed) for seed in range(num_seeds)]
    results = {"0.5": [evaluate((data.test_scores >= 0.5).astype(int), data.test_labels) for data in splits]}
    spread: list[Array] = []
    for title in rules(y):
        settings = [rules(data.labels)[title] for data in splits]
        models = [
            MultiLabelThresholdClassifier(Scores(), cv=data.splits, **chosen).fit(data.scores, data.labels)
            for data, chosen in zip(splits, settings, strict=True)
        ]
        results[title] = [
            evaluate(model.predict(data.test_scores), data.test_labels)
            for model, data in zip(models, splits, strict=True)
        ]
        if title in SPREAD:
            spread.append(np.nanmean([model.threshold_spread_ for model in models], axis=0))
    rare = splits[0].labels.sum(axis=0) < RARE
    rows = [
        [name, group, str(int(members.sum())), *(f"{values[members].mean():.3f}" for values in spread)]
        for group, members in ((f"fewer than {RARE}", rare), (f"{RARE} or more", ~rare))
        if members.any()
    ]
    return {title: np.array(values).T for title, values in results.items()}, rows


def main() -> None:
    """Print a table for each set, and one of the spread of the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--sets", nargs="+", help="names of the sets; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a synthetic data set, one seed")
    add_write_option(parser)
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("give --data FOLDER, or --quick for a smoke test")
    warnings.filterwarnings("ignore", message="No threshold meets")
    warnings.filterwarnings("ignore", message="Label (not )?.* is present in all training examples")
    sets = read_sets(None if options.quick else options.data, options.sets)
    tables, spreads = ResultTables(options.write), []
    for name, X, y in sets:
        results, rows = compare(name, X, y, 1 if options.quick else options.seeds)
        spreads += rows
        print(f"\n{name}")
        cells = ([title, *map(mean_and_deviation, values)] for title, values in results.items())
        tables.show("thresholds", ["rule", *MEASURES], cells, set=name)
    print("\nMean standard deviation of the thresholds over five folds")
    tables.show("threshold_spread", ["set", "positives", "labels", *SPREAD], spreads, num_text=2)


def mean_and_deviation(values: Array) -> str:
    """Format the mean and the standard deviation of a measure over the seeds."""
    return f"{values.mean():.3f} ({values.std(ddof=min(1, len(values) - 1)):.3f})"


if __name__ == "__main__":
    main()
