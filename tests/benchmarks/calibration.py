"""Calibration of three classifiers on real data sets, fitted on out-of-fold scores of the training rows.

python tests/benchmarks/calibration.py FILES_OR_FOLDERS    # .npz files with X or texts, Y, and n_train or n_development
python tests/benchmarks/calibration.py --quick             # smoke test on a synthetic set, without meaningful figures

All rows of a set are split anew by each seed, 70 % for training, stratified. Each classifier is fitted with its default
settings on the training rows, and five times on four fifths of them for out-of-fold scores. The figures are those of
the test rows, mean and standard deviation over the splits: means over labels of the expected calibration error (15 bins
of equal width), the Brier score and the log loss, and macro F1 at the threshold 0.5 and at thresholds for each label
that `best_thresholds` chooses on the calibrated out-of-fold probabilities. With `--own`, `MetricClassifier` is fitted
with and without `calibration=`, which uses the rows that it sets aside, and its own thresholds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from mlmetric.decisions import LabelCalibrator, MultiLabelCalibratedClassifier
from mlmetric.estimators import MetricClassifier
from mlmetric.metrics import best_thresholds, brier_score, calibration_error, f1, log_loss
from quality_sets import MultiLabelSet, read_sets, small_set
from result_tables import ResultTables, add_write_option

METHODS = ("none", "temperature", "platt", "isotonic")
HEADS = ["set", "calibration", "ECE", "Brier", "log loss", "macro F1 at 0.5", "macro F1, thresholds chosen"]


def classifiers(quick: bool) -> dict[str, Any]:
    """Return the classifiers by name."""
    return {
        "logistic regression": OneVsRestClassifier(LogisticRegression(max_iter=1000)),
        "random forest": RandomForestClassifier(10 if quick else 100, random_state=0),
        "MetricClassifier": MetricClassifier(random_state=0, **({"n_members": 1, "max_epochs": 1} if quick else {})),
    }


def figures_of(name: str, classifier: Any, data: MultiLabelSet, seed: int) -> Iterator[list[float]]:
    """Yield the figures of a classifier on a split, without and with each calibration."""
    train, test = replace(data, n_train=None, n_development=0).train_and_test(seed)
    X, y = data.standardized(train).numpy(), data.labels.numpy().astype(int)
    start = time.perf_counter()
    fitted = MultiLabelCalibratedClassifier(clone(classifier)).fit(X[train], y[train])
    has_logits = hasattr(classifier, "decision_function")
    if has_logits:
        scores, scale = fitted.estimator_.decision_function(X[test]), "logits"
    else:
        columns = zip(fitted.estimator_.predict_proba(X[test]), fitted.estimator_.classes_, strict=True)
        scores, scale = (
            np.column_stack([part[:, classes == 1].sum(axis=1) for part, classes in columns]),
            "probabilities",
        )
    print(f"{data.name}, {name}, split {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    for method in METHODS:
        if method == "none":
            out_of_fold, probabilities = (
                1 / (1 + np.exp(-part)) if has_logits else part for part in (fitted.oof_scores_, scores)
            )
        else:
            calibrator = LabelCalibrator(method, scale=scale).fit(fitted.oof_scores_, y[train])
            out_of_fold, probabilities = calibrator.transform(fitted.oof_scores_), calibrator.transform(scores)
        thresholds = best_thresholds(out_of_fold, y[train], fallback=0.5)
        figures = (metric(probabilities, y[test]) for metric in (calibration_error, brier_score, log_loss))
        decided = (f1(probabilities, y[test], threshold=each, zero_division=0) for each in (0.5, thresholds))
        yield [float(value) for value in (*figures, *decided)]


def rows_of(name: str, classifier: Any, data: MultiLabelSet, num_splits: int) -> Iterator[list[str]]:
    """Yield for each calibration the mean and the deviation of the figures over the splits."""
    figures = np.array([list(figures_of(name, classifier, data, seed)) for seed in range(num_splits)])
    for method, values in zip(METHODS, figures.transpose(1, 2, 0), strict=True):
        deviations = values.std(axis=1, ddof=min(1, num_splits - 1))
        yield [
            data.name,
            method,
            *(f"{mean:.3f} ({each:.3f})" for mean, each in zip(values.mean(axis=1), deviations, strict=True)),
        ]


def rows_of_own(data: MultiLabelSet, num_splits: int, quick: bool) -> Iterator[list[str]]:
    """Yield the figures of `MetricClassifier` with its own calibration."""
    for method in (None, "temperature", "platt"):
        figures = []
        for seed in range(num_splits):
            train, test = replace(data, n_train=None, n_development=0).train_and_test(seed)
            X, y = data.standardized(train).numpy(), data.labels.numpy().astype(int)
            classifier = classifiers(quick)["MetricClassifier"].set_params(calibration=method).fit(X[train], y[train])
            probabilities = classifier.predict_proba(X[test])
            values = [metric(probabilities, y[test]) for metric in (calibration_error, brier_score, log_loss)]
            for threshold in (0.5, torch.from_numpy(classifier.thresholds_)):
                values.append(f1(probabilities, y[test], threshold=threshold, zero_division=0))
            figures.append([float(value) for value in values])
        deviations = np.std(figures, axis=0, ddof=min(1, num_splits - 1))
        cells = (f"{mean:.3f} ({each:.3f})" for mean, each in zip(np.mean(figures, axis=0), deviations, strict=True))
        yield [data.name, method or "none", *cells]


def main() -> None:
    """Print a table for each classifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*", help=".npz files, or folders of them")
    parser.add_argument("--classifiers", nargs="+", help="names of the classifiers; all by default")
    parser.add_argument("--own", action="store_true", help="only `MetricClassifier` with its own calibration")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small synthetic data set and small classifiers")
    add_write_option(parser)
    options = parser.parse_args()
    if not options.paths and not options.quick:
        parser.error("give .npz files, or --quick for a smoke test")
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    warnings.filterwarnings("ignore", message="Label (not )?.* is present in all training examples")
    tables = ResultTables(options.write)
    chosen, num_splits = classifiers(options.quick), 1 if options.quick else options.splits
    if options.own:
        sets = [small_set()] if options.quick else read_sets(options.paths)
        rows = (row for data in sets for row in rows_of_own(data, num_splits, options.quick))
        tables.show("calibration_own", HEADS, rows, num_text=2)
        return
    for name in options.classifiers or chosen:
        sets = [small_set()] if options.quick else read_sets(options.paths)
        rows = [row for data in sets for row in rows_of(name, chosen[name], data, num_splits)]
        print(f"\n{name}")
        tables.show("calibration", HEADS, rows, num_text=2, classifier=name)


if __name__ == "__main__":
    main()
