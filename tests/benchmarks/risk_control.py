"""Rates of missed and of wrong labels on new rows with the thresholds of `mlmetric.decisions`, over random splits.

python tests/benchmarks/risk_control.py PATH ...   # .npz files or folders, as quality.py reads them
python tests/benchmarks/risk_control.py --quick    # a smoke test on a synthetic set, whose figures are meaningless

One logistic regression for each label is trained on the training rows of each set. The other rows are divided at random
into calibration rows, on which the threshold is set, and test rows, half each, `--splits` times. The standard error is
that of the mean over the splits, for the given rows. "Rows with predictions" is the mean rate of the rows for which a
label is predicted.

"Draws" are as many independent samples of calibration rows, with replacement, of the same size: the share of them with
a rate of at most alpha over all rows, which are then the population. "Uncorrected" is the threshold at which the rate
on the calibration rows is at most alpha, among 1,000 quantiles of the scores: the highest one for missed labels, and
for wrong labels the lowest one such that the rate is at most alpha at all higher ones too.

The last rows of each set have the thresholds with the highest F1 on the calibration rows, for comparison.

With `--mapie`, if it is installed, a further table compares thresholds and seconds with MAPIE on the first split of
each set: recall, method "crc", alpha 0.1, on its default grid.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlmetric.decisions import conformal_fnr_threshold, ltt_fdr_threshold
from mlmetric.metrics import best_thresholds
from quality_sets import MultiLabelSet, read_sets, small_set
from result_tables import ResultTables, add_write_option

Array = npt.NDArray[Any]
ALPHAS = (0.05, 0.1, 0.2)
DELTA = 0.1
NUM_QUANTILES = 1000


class ScoredRows(NamedTuple):
    """Scores and labels of rows that were not used for training."""

    name: str
    scores: Array
    labels: Array


def score(data: MultiLabelSet) -> ScoredRows:
    """Train on the first rows, and return the probabilities of the others."""
    num_train = data.n_train or data.n_development
    if not num_train:
        raise SystemExit(f"{data.name} must have the key n_train or n_development, the number of training rows.")
    labels = data.labels.numpy() > 0.5
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=1000)))
    model.fit(data.features[:num_train], labels[:num_train].astype(int))
    return ScoredRows(data.name, model.predict_proba(data.features[num_train:]), labels[num_train:])


def missed_labels(scores: Array, labels: Array, threshold: Any) -> Array:
    """Return the share of each row's true labels that are not predicted."""
    return (labels & (scores < threshold)).sum(axis=1) / labels.sum(axis=1).clip(1)


def wrong_labels(scores: Array, labels: Array, threshold: Any) -> Array:
    """Return the share of each row's predicted labels that are wrong."""
    predicted = scores >= threshold
    return (predicted & ~labels).sum(axis=1) / predicted.sum(axis=1).clip(1)


def splits(num_rows: int, number: int) -> Iterator[tuple[Array, Array]]:
    """Yield calibration rows and test rows."""
    for seed in range(number):
        yield tuple(np.array_split(np.random.default_rng(seed).permutation(num_rows), 2))


class Risk(NamedTuple):
    """A rate of rows and how its thresholds are found."""

    name: str
    rates: Callable[[Array, Array, Any], Array]
    find: Callable[..., Any]
    uncorrected: Callable[[Array], int]
    """Which of the descending thresholds, from whether the rate of the calibration rows is at most alpha at each."""


RISKS = (
    Risk("missed", missed_labels, conformal_fnr_threshold, lambda low: int(low.argmax())),
    Risk(
        "wrong",
        wrong_labels,
        partial(ltt_fdr_threshold, delta=DELTA),
        lambda low: len(low) - 1 if low.all() else max(int(low.argmin()) - 1, 0),
    ),
)


def evaluate(rows: ScoredRows, risk: Risk, alpha: float, num_splits: int) -> list[str]:
    """Return the cells of a row."""
    _, scores, labels = rows
    quantiles = np.unique(np.quantile(scores, np.linspace(0, 1, NUM_QUANTILES)))[::-1]  # descending
    rates_at = np.stack([risk.rates(scores, labels, threshold) for threshold in quantiles])
    measured, numbers, with_predictions, uncorrected, drawn = [], [], [], [], []
    for seed, (calibration, test) in enumerate(splits(len(scores), num_splits)):
        threshold = risk.find(scores[calibration], labels[calibration], alpha=alpha).item()
        rates, predicted = risk.rates(scores[test], labels[test], threshold), scores[test] >= threshold
        measured.append(rates.mean())
        numbers.append(predicted.sum(axis=1).mean())
        with_predictions.extend(rates[predicted.any(axis=1)])
        uncorrected.append(rates_at[risk.uncorrected(rates_at[:, calibration].mean(axis=1) <= alpha), test].mean())
        draw = np.random.default_rng(seed).integers(len(scores), size=len(calibration))
        drawn.append(risk.rates(scores, labels, risk.find(scores[draw], labels[draw], alpha=alpha).item()).mean())
    error = np.std(measured, ddof=1) / np.sqrt(num_splits)
    return [
        f"{np.mean(numbers):.2f}",
        f"{np.mean(measured):.4f}",
        f"{error:.4f}",
        f"{np.mean(with_predictions):.4f}" if with_predictions else "none",
        f"{np.mean(np.array(measured) <= alpha):.3f}",
        f"{np.mean(np.array(drawn) <= alpha):.3f}",
        f"{np.mean(uncorrected):.4f}",
        f"{np.mean(np.array(uncorrected) <= alpha):.3f}",
    ]


def evaluate_f1(rows: ScoredRows, risk: Risk, average: str, num_splits: int) -> list[str]:
    """Return the cells of a row of thresholds by F1: a common one (micro), or one for each label (macro)."""
    _, scores, labels = rows
    measured, numbers, with_predictions = [], [], []
    for calibration, test in splits(len(scores), num_splits):
        threshold = best_thresholds(
            scores[calibration], labels[calibration], average=average, per_label=average == "macro", fallback=np.inf
        ).numpy()
        rates, predicted = risk.rates(scores[test], labels[test], threshold), scores[test] >= threshold
        measured.append(rates.mean())
        numbers.append(predicted.sum(axis=1).mean())
        with_predictions.extend(rates[predicted.any(axis=1)])
    error = np.std(measured, ddof=1) / np.sqrt(num_splits)
    values = (np.mean(measured), error, np.mean(with_predictions))
    return [f"{np.mean(numbers):.2f}", *(f"{value:.4f}" for value in values), *[""] * 4]


def print_rates(sets: list[ScoredRows], num_splits: int, tables: ResultTables) -> None:
    """Print a table for missed labels and a table for wrong labels."""
    for risk in RISKS:
        heads = ["set", "calibration rows", "true labels", "alpha", "labels predicted", risk.name, "standard error"]
        heads += [
            "rows with predictions",
            "splits <= alpha",
            "draws <= alpha",
            "uncorrected",
            "uncorrected: splits <= alpha",
        ]
        cells = (
            [
                rows.name,
                str(len(rows.scores) - len(rows.scores) // 2),
                f"{rows.labels.sum(axis=1).mean():.2f}",
                title,
                *values,
            ]
            for rows in sets
            for title, values in (
                *((f"{alpha}", evaluate(rows, risk, alpha, num_splits)) for alpha in ALPHAS),
                *(
                    (f"highest {name} F1", evaluate_f1(rows, risk, average, num_splits))
                    for name, average in (("overall", "micro"), ("macro", "macro"))
                ),
            )
        )
        tables.show(f"{risk.name}_labels", heads, cells)


def print_mapie(sets: list[ScoredRows], tables: ResultTables) -> None:
    """Print thresholds and seconds of MAPIE and of this library."""
    from mapie.risk_control import MultiLabelClassificationController

    def row(rows: ScoredRows) -> list[str]:
        calibration, _ = next(splits(len(rows.scores), 1))
        scores, labels = rows.scores[calibration], rows.labels[calibration]
        start = time.perf_counter()
        ours = conformal_fnr_threshold(scores, labels, alpha=0.1).item()
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        controller = MultiLabelClassificationController(lambda X: X, target_level=0.9, risk="recall", method="crc")
        theirs = controller.calibrate(scores, labels.astype(int)).best_predict_param[0]
        return [rows.name, f"{theirs:.4f}", f"{ours:.4f}", f"{time.perf_counter() - start:.4f}", f"{seconds:.4f}"]

    tables.show("mapie", ["set", "MAPIE", "mlmetric", "MAPIE, seconds", "mlmetric, seconds"], map(row, sets))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help=".npz files or folders")
    parser.add_argument("--splits", type=int, default=500, help="number of random splits")
    parser.add_argument("--mapie", action="store_true", help="compare with MAPIE")
    parser.add_argument("--quick", action="store_true", help="a small synthetic set, 5 splits")
    add_write_option(parser)
    options = parser.parse_args()
    if not options.quick and not options.paths:
        parser.error("give files or folders, or --quick for a smoke test")
    sets = [score(data) for data in ([small_set()] if options.quick else read_sets(options.paths))]
    warnings.filterwarnings("ignore", message="A false")
    tables = ResultTables(options.write)
    print_rates(sets, 5 if options.quick else options.splits, tables)
    if options.mapie:
        print_mapie(sets, tables)


if __name__ == "__main__":
    main()
