"""`MetricClassifier` on training labels of which a share is not annotated, compared with absent and complete labels.

python tests/benchmarks/missing_labels.py PATH ...   # .npz files or folders, as quality.py reads them
python tests/benchmarks/missing_labels.py --quick    # a smoke test on a synthetic set, whose figures are meaningless

Of the entries of the training labels, `--share` are chosen at random, and are NaN, or 0 ("set to 0"). Each seed chooses
others, and is the seed of the classifier and of the split, if the set has no fixed one. The validation rows of the
classifier are training rows, and lack labels too. The test rows are complete. NDCG@10 is that of the test rows as
queries, and of the training rows with their complete labels as the database. Figures are means over the seeds, with the
standard deviation in brackets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mlmetric.estimators import MetricClassifier
from mlmetric.metrics import f1, mean_average_precision, ndcg_at_k
from quality_sets import MultiLabelSet, read_sets, small_set
from result_tables import ResultTables, add_write_option

METRICS = ("mAP", "macro F1", "NDCG@10")


def score(data: MultiLabelSet, seed: int, share: float, **settings: int) -> dict[str, list[float]]:
    """Train on each kind of labels, and return the metrics on the test rows."""
    train, test = data.train_and_test(seed)
    features, labels = data.standardized(train), data.labels.float()
    complete = labels[train].numpy()
    is_missing = np.random.default_rng(seed).random(complete.shape) < share
    kinds = {"NaN": np.nan, "set to 0": 0.0, "complete": complete}
    result = {}
    for name, replacement in kinds.items():
        classifier = MetricClassifier(random_state=seed, **settings)
        classifier.fit(features[train].numpy(), np.where(is_missing, replacement, complete))
        rows = features[test].numpy()
        embeddings, database = classifier.transform(rows), classifier.transform(features[train].numpy())
        result[name] = [
            float(mean_average_precision(classifier.predict_proba(rows), labels[test])),
            float(f1(classifier.predict(rows), labels[test], average="macro", threshold=0.5, zero_division=0)),
            float(ndcg_at_k(embeddings, labels[test], database, complete)),
        ]
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help=".npz files or folders")
    parser.add_argument("--share", type=float, default=0.3, help="share of the training labels that are missing")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--quick", action="store_true", help="a small synthetic set, one seed, two epochs")
    add_write_option(parser)
    options = parser.parse_args()
    if not options.quick and not options.paths:
        parser.error("give files or folders, or --quick for a smoke test")
    settings = {"n_members": 1, "max_epochs": 2} if options.quick else {}
    tables = ResultTables(options.write)
    for data in [small_set()] if options.quick else read_sets(options.paths):
        seeds = range(1 if options.quick else options.seeds)
        runs = [score(data, seed, options.share, **settings) for seed in seeds]
        rows = []
        for name in runs[0]:
            values = np.array([run[name] for run in runs])
            figures = zip(values.mean(0), values.std(0), strict=True)
            rows.append([name, *(f"{mean:.3f} ({deviation:.3f})" for mean, deviation in figures)])
        print(f"\n{data.name}")
        tables.show("missing_labels", ["missing labels", *METRICS], rows, set=data.name)


if __name__ == "__main__":
    main()
