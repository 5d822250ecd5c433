"""Quality of retrieval and of label prediction from embeddings: every method, on real sets.

python tests/benchmarks/quality.py --data FILE_OR_FOLDER [...]    # .npz files with X, Y and, if fixed, n_train
python tests/benchmarks/quality.py --wide                         # two synthetic sets, wide and with many labels
python tests/benchmarks/quality.py --quick                        # a quick check on a synthetic set, without meaning

Protocol. The first `n_train` rows are for training and the others for testing; a set without `n_train` is shuffled once
and split 70 to 30. Features are standardised by the training rows. For each seed, a stratified fifth of the training
rows is the validation part: only this part is used to choose epochs, the regularisation of the classifier, and
thresholds. The learning rate of each rival is the best of three on the validation part of the first seed, by the sum of
NDCG@10 and kNN mAP, or by mAP for classifiers without an embedding; ensembles use the rate of the single head. Epochs
are scored as in training: by NDCG@10, plus the mAP of a classifier that is trained with the head. Our recipes, that of
the paper and the steps between them have the same learning rate on every set. Test rows are the queries, all training
rows the database.

Origin of the recommended recipe. First experiments on emotions, scene, yeast and MIML used results on their test rows.
Its loss, head, weights and learning rate were then chosen on training rows only: a fifth as the test part, in three
splits that are none of these. On those four sets its results can still be too optimistic. Among settings of equal
quality there, those were chosen that are also good on wide features and many labels, by test rows of the synthetic
sets.

Columns. NDCG@10: with Jaccard gain, relative to the ideal ranking of the database. Size ratio: mean number of labels of
retrieved rows, divided by that of the database. kNN mAP: mAP of the share of each label among the 20 nearest training
rows. mAP and macro F1: of a logistic regression for each label on the frozen embedding, or of the scores of a method
that classifies features; retrieval then uses the features or, for the semantic projection, the projected features.
Seconds: of one training, on one thread.

Ranks. One of our recipes is "first" if its mean exceeds that of every rival by more than the larger standard deviation
of the two over seeds, "behind" if a rival exceeds it by that much, otherwise "tied", and "tied ahead" if its mean is
the highest. For NDCG, only rivals with an allowed size ratio are compared. The deviations contain the variation of
training and of the validation part, not that of test rows.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mlmetric._atomic_write import atomic_write
from mlmetric._fingerprint import fingerprint
from mlmetric.data import stratified_split
from mlmetric.estimators import RECOMMENDED_HEAD, MetricEmbedder
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import best_thresholds, f1, mean_average_precision, ndcg_at_k, size_ratio_at_k
from mlmetric.neighbors import kneighbors
from quality_methods import METHODS, RECOMMENDED, SINGLE_RECOMMENDED
from quality_sets import read_sets, small_set, wide_sets
from quality_tables import MEASURES, Runs, ranks, summary, table
from quality_training import Method, Parts, Result

REGULARISATION = (0.001, 0.01, 0.1, 1.0, 10.0)
NUM_NEIGHBORS = 20


def split(X: Tensor, y: Tensor, n_train: int, seed: int) -> Parts:
    """Standardise the features, and split validation rows off."""
    mean, deviation = X[:n_train].mean(0), X[:n_train].std(0, correction=0)
    X = (X - mean) / torch.where(deviation > 0, deviation, 1)
    generator = torch.Generator().manual_seed(seed)
    fit, validation = stratified_split(y[:n_train], (0.8, 0.2), generator=generator)
    return Parts(X[:n_train], y[:n_train], fit, validation, X[n_train:], y[n_train:], seed)


# Measuring.


def choose(method: Method, parts: Parts) -> tuple[float, Result]:
    """Train with each learning rate and return the best on the validation rows."""
    best: tuple[float, float, Result] | None = None
    for rate in method.rates:
        result = method.make(parts, rate)
        if len(method.rates) == 1:
            return rate, result
        target = parts.train_labels[parts.validation]
        if result.scores is not None:
            value = float(mean_average_precision(result.scores[0][parts.validation], target))
        else:
            queries, refs = result.train[parts.validation], result.train[parts.fit]
            ref_labels = parts.train_labels[parts.fit]
            value = float(ndcg_at_k(queries, target, refs, ref_labels, k=10))
            value += float(mean_average_precision(neighbor_scores(queries, refs, ref_labels), target))
        if best is None or value > best[0]:
            best = value, rate, result
    assert best is not None
    return best[1:]


def neighbor_scores(queries: Tensor, refs: Tensor, ref_labels: Tensor) -> Tensor:
    """Return the share of each label among the nearest rows."""
    _, rows = kneighbors(refs, min(NUM_NEIGHBORS, len(refs)), queries=queries)
    return ref_labels[rows].mean(dim=1)


def regression_scores(parts: Parts, result: Result) -> tuple[Tensor, Tensor]:
    """Score validation and test rows by a logistic regression for each label, on the embedding divided by its scale."""
    scale = float(result.train.std()) or 1.0
    train, test = (result.train / scale).numpy(), (result.test / scale).numpy()
    fit, validation = parts.fit.numpy(), parts.validation.numpy()
    labels = parts.train_labels.numpy()
    best: tuple[float, tuple[Tensor, Tensor]] | None = None
    for strength in REGULARISATION:
        columns: list[tuple[Any, Any]] = []
        for label in range(labels.shape[1]):
            y = labels[fit, label]
            if y.min() == y.max():
                columns.append((np.full(len(validation), y[0]), np.full(len(test), y[0])))
                continue
            model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(train[fit], y)
            columns.append((model.decision_function(train[validation]), model.decision_function(test)))
        validation_scores, test_scores = (
            torch.from_numpy(np.stack(part, axis=1)) for part in zip(*columns, strict=True)
        )
        value = float(mean_average_precision(validation_scores, parts.train_labels[parts.validation]))
        if best is None or value > best[0]:
            best = value, (validation_scores, test_scores)
    assert best is not None
    return best[1]


def measure(parts: Parts, result: Result) -> dict[str, float]:
    """Compute the metrics of a trained method."""
    if result.scores is None:
        validation_scores, test_scores = regression_scores(parts, result)
    else:
        validation_scores, test_scores = result.scores[0][parts.validation], result.scores[1]
    thresholds = best_thresholds(validation_scores, parts.train_labels[parts.validation])
    retrieval = (result.test, parts.test_labels, result.train, parts.train_labels)
    nearest = neighbor_scores(result.test, result.train, parts.train_labels)
    macro_f1 = f1(test_scores, parts.test_labels, threshold=thresholds, average="macro", zero_division=0)
    return {
        "ndcg": float(ndcg_at_k(*retrieval, k=10)),
        "size": float(size_ratio_at_k(*retrieval, k=10)),
        "knn": float(mean_average_precision(nearest, parts.test_labels)),
        "map": float(mean_average_precision(test_scores, parts.test_labels)),
        "macro_f1": float(macro_f1),
        "seconds": result.seconds,
    }


def run(name: str, X: Tensor, y: Tensor, n_train: int, seed: int, rate: float | None = None) -> dict[str, float]:
    """Run one method with one seed, with this learning rate or the best one on the validation rows."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    parts, method = split(X, y, n_train, seed), METHODS[name]
    rate, result = choose(method, parts) if rate is None else (rate, method.make(parts, rate))
    return measure(parts, result) | {"lr": rate}


def results(cases: Mapping[str, tuple[Any, ...]], *, jobs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Run the cases, in several processes if `jobs` is above 1, and yield each result when it is complete."""
    if jobs == 1:
        yield from ((name, run(*case)) for name, case in cases.items())
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, *case): name for name, case in cases.items()}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


# Runs, and the file of their results.


def digest(name: str, X: Tensor, y: Tensor, n_train: int) -> str:
    """Return a digest of a run: the method with all its settings, the rows, and the number of training rows.

    It does not include the code of the package: use another file if that has changed.
    """
    method = METHODS[name]
    methods = [method] if method.rate_of is None else [method, METHODS[method.rate_of]]
    settings = [[each.make, each.rates] for each in methods]
    defaults = [MetricEmbedder(), RECOMMENDED_HEAD, LogRatioLoss(), REGULARISATION, NUM_NEIGHBORS]
    return fingerprint(settings=settings, defaults=defaults, X=X, y=y, n_train=n_train)[:16]


def run_all(
    names: list[str], title: str, rows: tuple[Tensor, Tensor, int], seeds: range, jobs: int, output: Path | None
) -> Runs:
    """Run what the file does not contain: for each seed first the methods that choose their learning rate."""
    done = json.loads(output.read_text()) if output is not None and output.exists() else {}
    keys = {(name, seed): f"{title}/{name}/{seed}/{digest(name, *rows)}" for name in names for seed in seeds}
    for seed in seeds:
        for borrow in (False, True):
            cases = {}
            for name in names:
                key, source = keys[name, seed], METHODS[name].rate_of
                if key in done or (source is not None) != borrow:
                    continue
                first = keys[name if source is None else source, 0]
                rate = done[first]["lr"] if seed or borrow else None
                cases[key] = (name, *rows, seed, rate)
            for key, result in results(cases, jobs=jobs):
                done[key] = result
                if output is not None:
                    with atomic_write(output) as file:
                        file.write(json.dumps(done, indent=1).encode())
    return {name: [done[keys[name, seed]] for seed in seeds] for name in names}


def main() -> None:
    """Print a table for each set, and the ranks of our recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help=".npz files, or folders of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--only", help="methods whose name contains this text, and those whose learning rate they use")
    parser.add_argument("--output", type=Path, help="JSON file of the results, which a later call continues")
    parser.add_argument("--wide", action="store_true", help="two synthetic sets with wide features and many labels")
    parser.add_argument("--quick", action="store_true", help="a synthetic set, one seed, three methods")
    options = parser.parse_args()
    if options.data is None and not options.wide and not options.quick:
        parser.error("pass --data FILE_OR_FOLDER, --wide for synthetic sets, or --quick for a quick check")
    names = [name for name in METHODS if options.only is None or options.only in name]
    sources = {METHODS[name].rate_of for name in names}
    names = [name for name in METHODS if name in names or name in sources]
    seeds, jobs = range(options.seeds), options.jobs
    if options.quick:
        names, seeds, jobs = ["raw features, linear probe", "label graph (ML-GCN)", SINGLE_RECOMMENDED], range(1), 1
    sets: dict[str, Runs] = {}
    verdicts: dict[str, list[str]] = {ours: [] for ours in (RECOMMENDED, SINGLE_RECOMMENDED)}
    selected = (
        [small_set()] if options.quick else [*read_sets(options.data or []), *(wide_sets() if options.wide else ())]
    )
    for title, X, y, n_train in selected:
        runs = sets[title] = run_all(names, title, (X, y, n_train), seeds, jobs, options.output)
        print(f"\n{title}: {n_train} training rows, {len(X) - n_train} test rows, {X.shape[1]} features, ", end="")
        print(f"{y.shape[1]} labels; mean (deviation) of {len(seeds)} seeds\n\n{table(runs)}", flush=True)
        for ours in verdicts if names == list(METHODS) and len(seeds) > 2 else ():
            print(f"\n{ours}:")
            for measured, rank in ranks(runs, ours).items():
                print(f"- {MEASURES[measured]}: {rank}", flush=True)
                verdicts[ours].append(rank.split(" by ")[0])
    if len(sets) > 1:
        print(f"\n{' / '.join(MEASURES.values())}\n\n{summary(sets)}")
    for ours, found in verdicts.items():
        if found:
            print(f"\n{ours}: {', '.join(f'{word} {found.count(word)}' for word in dict.fromkeys(found))}")


if __name__ == "__main__":
    main()
