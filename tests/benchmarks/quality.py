"""Quality of retrieval and of label prediction: every method, on real sets.

python tests/benchmarks/quality.py --data FILE_OR_FOLDER [...]    # .npz files: X or texts, Y, perhaps n_train
python tests/benchmarks/quality.py --data FILE --methods "linear probe" recommended
python tests/benchmarks/quality.py --wide                         # two synthetic sets, wide and with many labels
python tests/benchmarks/quality.py --quick                        # a quick check on a synthetic set, without meaning

Protocol. The first `n_train` rows are for training and the others for testing. A set without `n_train` is split 70 to
30 anew by each seed, stratified; its first `n_development` rows are training rows of every split. Features are
standardised by the training rows; the features of texts are computed from them (TF-IDF of words and character n-grams,
truncated SVD). For each seed, a stratified fifth of the training rows is the validation part: only this part is used to
choose epochs, the regularisation of the linear classifier, and thresholds. `MetricClassifier` gets all training rows
and sets other rows aside for each of its members; with two stages, or if its name says so, it uses the validation part.
The learning rate of each method that is not ours is the best of three on the validation part of the first seed, by the
sum of NDCG@10 and kNN mAP, or by mAP for classifiers; ensembles use the rate of the single network. Our recipes, that
of the paper and the steps between them have the same learning rate on every set. Test rows are the queries, all
training rows the database.

Origin of the recommended recipe. First experiments on emotions, scene, yeast and MIML used results on their test rows.
Its loss, head, weights and learning rate were then chosen on training rows only: a fifth as the test part, in three
splits that are none of these. How it predicts labels was chosen on training rows, too, in one split, and on the
development rows of two sets of slogans. On these sets its results can still be too optimistic. Among settings of equal
quality there, those were chosen that are also good on wide features and many labels, by test rows of the synthetic
sets.

Columns. NDCG@10: with Jaccard gain, relative to the ideal ranking of the database. Size ratio: mean number of labels of
retrieved rows, divided by that of the database. kNN mAP: mAP of the share of each label among the 20 nearest training
rows. mAP, macro F1 and overall F1: of the scores of a method that classifies features, otherwise of a logistic
regression for each label on the frozen embedding, from the epoch that is best for retrieval; F1 at thresholds that are
chosen on validation rows with the limit `max_predicted` of `MetricClassifier`. A classifier without an embedding
retrieves by the features, a perceptron by its second hidden layer, the semantic projection by the projected features.
Seconds: of CPU time of one training, on one thread.

Ranks. One of our recipes is "first" if its mean exceeds that of every other method by more than the larger standard
deviation of the two over seeds, "behind" if another method exceeds it by that much, otherwise "tied", and "tied ahead"
if its mean is the highest. For NDCG, a remark names those of the two compared methods whose size ratio is not from 0.95
to 1.1. The deviations contain the variation of training, of the validation part, and, where each seed has another
split, of the test rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from measuring import results
from mlmetric._atomic_write import atomic_write
from mlmetric._fingerprint import fingerprint
from mlmetric.data import stratified_split
from mlmetric.estimators import RECOMMENDED_HEAD, MetricClassifier
from mlmetric.evaluation import evaluate_embeddings
from mlmetric.losses import LogRatioLoss
from mlmetric.metrics import best_thresholds, f1, mean_average_precision
from quality_classifiers import REGULARISATION, logistic_regression
from quality_methods import METHODS, ONE_MEMBER, RECOMMENDED
from quality_sets import MultiLabelSet, read_sets, small_set, wide_sets
from quality_tables import MEASURES, RANK_HEADS, Runs, rank_rows, result_rows
from quality_training import Method, Parts, Result
from result_tables import ResultTables, add_write_option

NUM_NEIGHBORS = 20


def split(data: MultiLabelSet, seed: int) -> Parts:
    """Split test rows and validation rows off."""
    train, test = data.train_and_test(seed)
    features, labels = data.standardized(train), data.labels
    generator = torch.Generator().manual_seed(seed)
    fit, validation = stratified_split(labels[train], (0.8, 0.2), generator=generator)
    return Parts(features[train], labels[train], fit, validation, features[test], labels[test], seed)


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
            found = neighbor_metrics(queries, target, refs, ref_labels)
            value = found["ndcg"] + found["knn"]
        if best is None or value > best[0]:
            best = value, rate, result
    assert best is not None
    return best[1:]


def neighbor_metrics(queries: Tensor, labels: Tensor, refs: Tensor, ref_labels: Tensor) -> dict[str, float]:
    """Compute the metrics of the nearest rows: NDCG@10 and size ratio, and mAP of the shares of the labels."""
    options = {"parts": ("retrieval", "knn"), "full_ranking": False, "confidence_level": None}
    found = evaluate_embeddings(queries, labels, refs, ref_labels, n_neighbors=NUM_NEIGHBORS, **options).values
    return {
        "ndcg": found["retrieval_ndcg_at_10"],
        "size": found["retrieval_size_ratio_at_10"],
        "knn": found["knn_map"],
    }


def measure(parts: Parts, result: Result) -> dict[str, float]:
    """Compute the metrics of a trained method."""
    scale = float(result.train.std()) or 1.0
    scores = result.scores or logistic_regression(parts, result.train / scale, result.test / scale)
    if result.predictions is None:
        held_out = scores[0][parts.validation], parts.train_labels[parts.validation]
        thresholds = best_thresholds(*held_out, max_predicted=MetricClassifier().max_predicted)
        predictions = (scores[1] >= thresholds).long()
    else:
        predictions = result.predictions
    macro_f1, overall_f1 = (
        float(f1(predictions, parts.test_labels, threshold=0.5, average=average, zero_division=0))
        for average in ("macro", "micro")
    )
    nearest = neighbor_metrics(result.test, parts.test_labels, result.train, parts.train_labels)
    return nearest | {
        "map": float(mean_average_precision(scores[1], parts.test_labels)),
        "macro_f1": macro_f1,
        "overall_f1": overall_f1,
        "seconds": result.seconds,
    }


def run(name: str, parts: Parts, rate: float | None = None) -> dict[str, float]:
    """Run one method, with this learning rate or the best one on the validation rows."""
    torch.set_num_threads(1)
    method = METHODS[name]
    rate, result = choose(method, parts) if rate is None else (rate, method.make(parts, rate))
    return measure(parts, result) | {"lr": rate}


# Runs, and the file of their results.


def digest(name: str, data: MultiLabelSet) -> str:
    """Return a digest of a run: the method with all its settings, and the data set.

    It does not include the code of the package: use another file if that has changed.
    """
    method = METHODS[name]
    methods = [method] if method.rate_of is None else [method, METHODS[method.rate_of]]
    settings = [[each.make, each.rates] for each in methods]
    defaults = [MetricClassifier(), RECOMMENDED_HEAD, LogRatioLoss(), REGULARISATION, NUM_NEIGHBORS]
    return fingerprint(settings=settings, defaults=defaults, data=data)[:16]


def run_all(names: list[str], data: MultiLabelSet, seeds: range, jobs: int, output: Path | None) -> Runs:
    """Run what the file does not contain: for each seed first the methods that choose their learning rate."""
    done = json.loads(output.read_text()) if output is not None and output.exists() else {}
    digests = {name: digest(name, data) for name in names}
    keys = {(name, seed): f"{data.name}/{name}/{seed}/{digests[name]}" for name in names for seed in seeds}
    for seed in seeds:
        parts = split(data, seed)
        for borrow in (False, True):
            cases = {}
            for name in names:
                key, source = keys[name, seed], METHODS[name].rate_of
                if key in done or (source is not None) != borrow:
                    continue
                first = keys[name if source is None else source, 0]
                rate = done[first]["lr"] if seed or borrow else None
                cases[key] = (name, parts, rate)
            for key, result in results(run, cases, jobs=jobs):
                done[key] = result
                if output is not None:
                    with atomic_write(output) as file:
                        file.write(json.dumps(done, indent=1).encode())
    return {name: [done[keys[name, seed]] for seed in seeds] for name in names}


def is_selected(name: str, texts: list[str]) -> bool:
    """Return whether a name is one of the texts, or contains one that is not itself the name of a method."""
    return any(name == text or (text not in METHODS and text in name) for text in texts)


def main() -> None:
    """Print a table for each set, with the ranks of our recipes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help=".npz files, or folders of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument(
        "--methods",
        nargs="+",
        help="names of methods, or parts of names; the methods whose learning rate they use are added",
    )
    parser.add_argument("--output", type=Path, help="JSON file of the results, which a later call continues")
    parser.add_argument("--wide", action="store_true", help="two synthetic sets with wide features and many labels")
    parser.add_argument("--quick", action="store_true", help="a synthetic set, one seed, three methods")
    add_write_option(parser)
    options = parser.parse_args()
    if options.data is None and not options.wide and not options.quick:
        parser.error("pass --data FILE_OR_FOLDER, --wide for synthetic sets, or --quick for a quick check")
    names = [name for name in METHODS if options.methods is None or is_selected(name, options.methods)]
    if not names:
        parser.error(f"no method contains {options.methods}; the methods are: {', '.join(METHODS)}")
    sources = {METHODS[name].rate_of for name in names}
    names = [name for name in METHODS if name in names or name in sources]
    seeds, jobs = range(options.seeds), options.jobs
    if options.quick:
        names, seeds, jobs = ["linear probe", "label graph (ML-GCN)", ONE_MEMBER], range(1), 1
    tables = ResultTables(options.write)
    verdicts: dict[str, list[str]] = {ours: [] for ours in (RECOMMENDED, ONE_MEMBER) if ours in names}
    is_ranked = options.quick or (names == list(METHODS) and len(seeds) > 2)
    selected = (
        [small_set()] if options.quick else [*read_sets(options.data or []), *(wide_sets() if options.wide else ())]
    )
    for data in selected:
        runs = run_all(names, data, seeds, jobs, options.output)
        train, test = data.train_and_test(0)
        num_features = split(data, 0).train.shape[1]
        print(f"\n{data.name}: {len(train)} training rows, {len(test)} test rows, {num_features} features, ", end="")
        print(f"{data.labels.shape[1]} labels; mean (deviation) of {len(seeds)} splits", flush=True)
        tables.show("methods", ["method", *MEASURES.values(), "seconds"], result_rows(runs), set=data.name)
        rows = [row for ours in verdicts if is_ranked for row in rank_rows(runs, ours)]
        if rows:
            tables.show("ranks", RANK_HEADS, rows, num_text=2, set=data.name)
        for ours, _, _, rank, *_ in rows:
            verdicts[ours].append(rank)
    for ours, found in verdicts.items():
        if found:
            print(f"\n{ours}: {', '.join(f'{word} {found.count(word)}' for word in dict.fromkeys(found))}")


if __name__ == "__main__":
    main()
