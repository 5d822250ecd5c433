"""How many flipped annotations are found: by a model, by neighbours, by both, and by cleanlab if it is installed.

python tests/benchmarks/label_errors.py --data FOLDER               # all .npz files there with X and Y
python tests/benchmarks/label_errors.py --data FILE --embedder      # also neighbours in embeddings of MetricEmbedder
python tests/benchmarks/label_errors.py --data FILE --model metric  # probabilities of MetricClassifier
python tests/benchmarks/label_errors.py --data FILE --top 20        # flips nothing: the first pairs, to be looked at
python tests/benchmarks/label_errors.py --quick                     # a quick check on a synthetic set, without meaning

Protocol. All rows of a set are used, with standardised features. Annotations are flipped in one of two ways. Balanced:
of each label, a share of its 1s, and the same number of its 0s, so that its frequency stays. Independent: each entry
with the same probability, so that most flips turn a 0 into a 1. The probabilities are those of logistic regressions,
C=0.01, or of `MetricClassifier` with default settings, trained on the flipped annotations and out of fold, by five
stratified folds. The neighbours are the 20 nearest rows in the same features; with `--embedder` also those in the
embeddings of a `MetricEmbedder` with default settings that was trained on all rows with the flipped annotations. Each
method ranks all entries; the figure is the share of flips among the first F of them, where F is the number of flips:
mean and standard deviation over the seeds, which draw flips and folds. A random order would reach F / number of
entries. The sets also contain errors of their own; these count as false alarms. C, k and the average of both were
chosen on emotions and scene with other seeds.

cleanlab ranks the rows of one label. Its order of all entries is by its score of each label; "filter" puts the entries
that its filter reports first.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlmetric.data import MultiLabelStratifiedKFold
from mlmetric.estimators import MetricClassifier, MetricEmbedder
from mlmetric.label_errors import rank_label_errors
from result_tables import ResultTables, add_write_option

Array = npt.NDArray[Any]
SCORES = {"": "self_confidence", ", adjusted": "adjusted_margin"}


def read_sets(paths: list[Path]) -> Iterator[tuple[str, Array, Array]]:
    """Read data sets, or make a small synthetic one."""
    if not paths:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, (150, 3))
        yield "synthetic", y @ rng.normal(size=(3, 5)) + rng.normal(size=(150, 5)), y
    files = [file for path in paths for file in (path.glob("*.npz") if path.is_dir() else [path])]
    for path in sorted(files):
        with np.load(path) as data:
            if {"X", "Y"} <= set(data):
                yield path.stem, data["X"].astype(np.float64), data["Y"].astype(np.int64)


def draw_flips(labels: Array, rate: float, kind: str, rng: np.random.Generator) -> Array:
    """Draw the entries to flip, bool, shape `(N, L)`."""
    if kind == "independent":
        return rng.random(labels.shape) < rate
    flips = np.zeros(labels.shape, dtype=bool)
    for label, column in enumerate(labels.T):
        number = round(rate * int(column.sum()))
        for value in (0, 1):
            flips[rng.choice(np.flatnonzero(column == value), number, replace=False), label] = True
    return flips


def out_of_fold(features: Array, labels: Array, model: str, seed: int) -> Array:
    """Return probabilities of models that were not trained on the row."""
    if model == "metric":
        estimator = MetricClassifier(random_state=seed)
    else:
        regression = LogisticRegression(C=0.01, max_iter=1000)
        estimator = make_pipeline(StandardScaler(), OneVsRestClassifier(regression))
    folds = MultiLabelStratifiedKFold(5, shuffle=True, random_state=seed)
    return cross_val_predict(estimator, features, labels, cv=folds, method="predict_proba")


def ranked_entries(labels: Array, **evidence: Any) -> tuple[Array, float]:
    """Return the flat indices of all entries, the most suspicious first, and the estimated number of errors."""
    errors = rank_label_errors(labels, max_pairs=labels.size, **evidence)
    return errors.rows * labels.shape[1] + errors.labels, float(errors.estimated_errors.sum())


def cleanlab_orders(labels: Array, probabilities: Array) -> Iterator[tuple[str, Array, float]]:
    """Yield the name of each order by cleanlab, the order, and the number of entries that its filter reports."""
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from cleanlab.rank import get_label_quality_scores

    sets = [np.flatnonzero(row).tolist() for row in labels]
    reported = np.asarray(find_multilabel_issues_per_class(sets, probabilities, n_jobs=1))
    columns = [
        (column.astype(int), np.stack([1 - positive, positive], axis=1))
        for column, positive in zip(labels.T, probabilities.T, strict=True)
    ]
    quality = np.stack([get_label_quality_scores(*column, method="self_confidence") for column in columns], axis=1)
    adjusted = [
        get_label_quality_scores(*column, method="normalized_margin", adjust_pred_probs=True) for column in columns
    ]
    number = float(reported.sum())
    yield "cleanlab", np.argsort(quality, axis=None, kind="stable"), number
    yield "cleanlab, adjusted", np.argsort(np.stack(adjusted, axis=1), axis=None, kind="stable"), number
    yield "cleanlab, filter", np.lexsort((quality.ravel(), ~reported.ravel())), number


def orders(
    features: Array, labels: Array, probabilities: Array, embeddings: Array | None
) -> Iterator[tuple[str, Array, float]]:
    """Yield the name of each method, its order of the entries, and its estimate of the number of errors."""
    evidence = {
        "model": {"probabilities": probabilities},
        "neighbours": {"embeddings": features},
        "both": {"probabilities": probabilities, "embeddings": features},
    }
    if embeddings is not None:
        evidence["embedder"] = {"embeddings": embeddings}
        evidence["model and embedder"] = {"probabilities": probabilities, "embeddings": embeddings}
    for name, arguments in evidence.items():
        for suffix, score in SCORES.items():
            yield f"{name}{suffix}", *ranked_entries(labels, score=score, **arguments)
    if importlib.util.find_spec("cleanlab"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from cleanlab_orders(labels, probabilities)


def measure(name: str, X: Array, y: Array, kind: str, rate: float, options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield a row of the table for each method."""
    features = StandardScaler().fit_transform(X)
    found, estimates, shares = defaultdict(list), defaultdict(list), []
    for seed in range(options.seeds):
        flips = draw_flips(y, rate, kind, np.random.default_rng(seed))
        labels = np.where(flips, 1 - y, y)
        number = int(flips.sum())
        shares.append(number / y.size)
        probabilities, embeddings = out_of_fold(X, labels, options.model, seed), None
        if options.embedder:
            embeddings = MetricEmbedder(random_state=seed).fit(features, labels).transform(features)
        for method, order, estimate in orders(features, labels, probabilities, embeddings):
            found[method].append(flips.ravel()[order[:number]].mean())
            estimates[method].append(estimate / number)
    for method, values in found.items():
        figures = (np.mean(values), np.std(values, ddof=options.seeds > 1), np.mean(estimates[method]), np.mean(shares))
        yield [name, kind, f"{rate:.0%}", method, *(f"{figure:.3f}" for figure in figures)]


def print_suspects(name: str, X: Array, y: Array, model: str, number: int) -> None:
    """Print the first pairs of a set as it is, by the model and the neighbours."""
    features = StandardScaler().fit_transform(X)
    errors = rank_label_errors(y, probabilities=out_of_fold(X, y, model, seed=0), embeddings=features)
    print(f"\n{name}\n\n{errors.summary(number)}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help=".npz files, or folders of them, with X and Y")
    parser.add_argument("--model", choices=("logistic", "metric"), default="logistic")
    parser.add_argument("--embedder", action="store_true", help="also search in embeddings of MetricEmbedder")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1], help="shares of flips")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--top", type=int, help="print this number of missing and of wrong labels, without flips")
    parser.add_argument("--quick", action="store_true", help="one seed of a synthetic set")
    add_write_option(parser)
    options = parser.parse_args()
    if not options.data and not options.quick:
        parser.error("pass --data or --quick")
    if options.quick:
        options.rates, options.seeds = [0.1], 1
    if options.top is not None:
        for name, X, y in read_sets(options.data or []):
            print_suspects(name, X, y, options.model, options.top)
        return
    heads = ["set", "flips", "rate", "method", "found", "found sd", "estimated / flips", "random order"]
    rows = (
        row
        for name, X, y in read_sets(options.data or [])
        for kind in ("balanced", "independent")
        for rate in options.rates
        for row in measure(name, X, y, kind, rate, options)
    )
    name = "label_errors_embedder" if options.embedder else "label_errors"
    ResultTables(options.write).show(name, heads, rows, num_text=4)


if __name__ == "__main__":
    main()
