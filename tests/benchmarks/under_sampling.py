"""Effect of undersampling and oversampling on real data sets: number of rows, MeanIR, and a classifier trained on them.

python tests/benchmarks/under_sampling.py --data FOLDER    # all .npz files there with X, Y and n_train
python tests/benchmarks/under_sampling.py --data FOLDER --only over   # oversampling, compared with all rows as they are
python tests/benchmarks/under_sampling.py --quick          # smoke test on a synthetic set, without meaningful figures

The first `n_train` rows are for training, the others for testing. For each seed a fifth of the training rows is held
out for validation, stratified; the rest is standardised and resampled. A logistic regression for each label is trained
on the result, its regularisation chosen by mAP and its thresholds by F1 on validation, and evaluated on the test rows.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from mlmetric.data import stratified_split
from mlmetric.imbalance import mean_ir
from mlmetric.metrics import best_thresholds, f1, mean_average_precision
from result_tables import ResultTables, add_write_option
from under_sampling_methods import OVER_SAMPLERS, SAMPLERS, seeded

Array = npt.NDArray[Any]
REGULARISATION = (0.01, 0.1, 1.0)


class Result(NamedTuple):
    """Result of one sampler with one seed."""

    change: float
    """Number of rows added, as a fraction of the rows before; below 0 if rows were removed."""
    mean_ir_before: float
    mean_ir_after: float
    labels_lost: float
    """Number of labels that lost all positives, which MeanIR leaves out."""
    macro_f1: float
    mean_ap: float


class Parts(NamedTuple):
    """Training, validation and test rows; the features are standardised on the training rows."""

    fit: tuple[Array, Array]
    validation: tuple[Array, Array]
    test: tuple[Array, Array]


def read_sets(folder: Path | None) -> Iterator[tuple[str, Array, Array, int]]:
    """Read all data sets of a folder, or make a small synthetic one."""
    if folder is None:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(160, 6))
        y = (X @ rng.normal(size=(6, 3)) + rng.normal(size=(160, 3)) > [-1, 1, 2.5]).astype(np.int64)
        yield "synthetic", X, y, 120
        return
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            yield path.stem, data["X"].astype(np.float64), data["Y"].astype(np.int64), int(data["n_train"])


def split(X: Array, y: Array, n_train: int, seed: int) -> Parts:
    """Hold out validation rows, and standardise on the rest."""
    generator = torch.Generator().manual_seed(seed)
    fit, validation = stratified_split(torch.from_numpy(y[:n_train]), (0.8, 0.2), generator=generator)
    rows = (fit.numpy(), validation.numpy(), np.arange(n_train, len(X)))
    scaler = StandardScaler().fit(X[rows[0]])
    return Parts(*((scaler.transform(X[part]), y[part]) for part in rows))


def scores_of(model: OneVsRestClassifier, X: Array) -> torch.Tensor:
    """Return the probability of each label, float64."""
    return torch.from_numpy(np.asarray(model.predict_proba(X), dtype=np.float64))


def run(sampler: Any, parts: Parts, seed: int) -> Result:
    """Resample, train, select and evaluate."""
    X, y = parts.fit
    if sampler is not None:
        X, y = seeded(sampler, seed).fit_resample(X, y)
    before, after = mean_ir(parts.fit[1]), mean_ir(y)
    best: tuple[float, OneVsRestClassifier] | None = None
    target = torch.from_numpy(parts.validation[1])
    for strength in REGULARISATION:
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=300)).fit(X, y)
        value = float(mean_average_precision(scores_of(model, parts.validation[0]), target))
        if best is None or value > best[0]:
            best = value, model
    thresholds = best_thresholds(scores_of(best[1], parts.validation[0]), target, fallback=0.5)
    scores, truth = scores_of(best[1], parts.test[0]), torch.from_numpy(parts.test[1])
    return Result(
        change=len(X) / len(parts.fit[0]) - 1,
        mean_ir_before=before,
        mean_ir_after=after,
        labels_lost=float((parts.fit[1].any(axis=0) & ~y.any(axis=0)).sum()),
        macro_f1=float(f1(scores, truth, threshold=thresholds, average="macro", zero_division=0)),
        mean_ap=float(mean_average_precision(scores, truth)),
    )


def cell(values: list[float], digits: int, *, spread: bool = False) -> str:
    """Format the mean, and the standard deviation if `spread`."""
    text = f"{statistics.fmean(values):.{digits}f}"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{text} ({deviation:.{digits}f})" if spread else text


def row_of_table(title: str, results: list[Result]) -> list[str]:
    """Format the results of one sampler with several seeds."""
    changes, *ratios, lost, macro_f1, mean_ap = (list(column) for column in zip(*results, strict=True))
    cells = [f"`{title}`", f"{100 * statistics.fmean(changes):+.1f} %", *(cell(ratio, 2) for ratio in ratios)]
    return [*cells, cell(lost, 1), cell(macro_f1, 3, spread=True), cell(mean_ap, 3, spread=True)]


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=["under", "over"], help="undersampling or oversampling only")
    parser.add_argument("--quick", action="store_true", help="a synthetic data set, one seed")
    add_write_option(parser)
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("give --data FOLDER, or --quick for a smoke test")
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    warnings.filterwarnings("ignore", message=r"\w+ (removed|raised|added) ")
    warnings.filterwarnings("ignore", message="Label (not )?.* is present in all training examples")
    chosen = {"under": SAMPLERS, "over": OVER_SAMPLERS, None: SAMPLERS | OVER_SAMPLERS}
    samplers, tables = chosen[options.only], ResultTables(options.write)
    for name, X, y, n_train in read_sets(None if options.quick else options.data):
        seeds = range(1 if options.quick else options.seeds)
        parts = [split(X, y, n_train, seed) for seed in seeds]
        print(
            f"\n{name}: {len(parts[0].fit[0])} rows to resample, {X.shape[1]} features, {y.shape[1]} labels; ", end=""
        )
        print(f"mean (deviation) of {len(seeds)} seeds")
        rows = (
            row_of_table(title, [run(sampler, part, seed) for part, seed in zip(parts, seeds, strict=True)])
            for title, sampler in {"none": None, **samplers}.items()
        )
        heads = ["sampler", "rows", "MeanIR before", "MeanIR after", "labels lost", "macro F1", "mAP"]
        tables.show("sampling", heads, rows, set=name)


if __name__ == "__main__":
    main()
