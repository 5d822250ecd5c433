"""What `evaluate_embeddings` measures of given features and of an embedding that is trained on them.

python tests/benchmarks/evaluation.py --data FILE_OR_FOLDER [...] [--seeds 5]    # .npz files as in quality.py
python tests/benchmarks/evaluation.py --quick                                    # a synthetic set, without meaning

Each seed has the test part that it has in `quality.py`. "features" are the features, standardised on the training rows,
and "embedding" is that of a `MetricEmbedder` with one member, trained on all training rows; the training rows are the
database and the training rows of the probes. With "half" the embedding is trained on half of the training rows only,
and the other half is the database and trains the probes, of the features as well.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

from mlmetric.data import stratified_split
from mlmetric.estimators import MetricEmbedder
from mlmetric.evaluation import evaluate_embeddings
from quality_sets import MultiLabelSet, read_sets, small_set
from result_tables import ResultTables, add_write_option


def measure(data: MultiLabelSet, seed: int) -> dict[str, dict[str, float]]:
    """Return the values of each embedding in the split of a seed."""
    train, test = data.train_and_test(seed)
    features, labels = data.standardized(train), data.labels
    generator = torch.Generator().manual_seed(seed)
    fit, rest = (train[rows] for rows in stratified_split(labels[train], (0.5, 0.5), generator=generator))

    def values(embeddings: Tensor, refs: Tensor) -> dict[str, float]:
        rows = (embeddings[test], labels[test], embeddings[refs], labels[refs])
        return dict(evaluate_embeddings(*rows, confidence_level=None, random_state=seed).values)

    def trained(rows: Tensor) -> Tensor:
        embedder = MetricEmbedder(n_members=1, random_state=seed).fit(features[rows].numpy(), labels[rows].numpy())
        return torch.from_numpy(embedder.transform(features.numpy()))

    return {
        "features": values(features, train),
        "embedding": values(trained(train), train),
        "features, half": values(features, rest),
        "embedding, half": values(trained(fit), rest),
    }


def cells(key: str, runs: list[dict[str, dict[str, float]]]) -> list[str]:
    """Return a row of the table: mean and deviation of a metric over the seeds, for each embedding."""
    row = [key]
    for name in runs[0]:
        found = [run[name][key] for run in runs]
        deviation = statistics.stdev(found) if len(found) > 1 else 0.0
        row.append(f"{statistics.fmean(found):.3f} ({deviation:.3f})")
    return row


def main() -> None:
    """Print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", help=".npz files, or folders of them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a synthetic set, one seed")
    add_write_option(parser)
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("pass --data FILE_OR_FOLDER, or --quick for a quick check")
    tables = ResultTables(options.write)
    for data in [small_set()] if options.quick else read_sets(options.data):
        runs = [measure(data, seed) for seed in range(1 if options.quick else options.seeds)]
        print(f"\n{data.name}, splits: {len(runs)}")
        rows = (cells(key, runs) for key in runs[0]["features"])
        tables.show("embedding_evaluation", ["metric", *runs[0]], rows, set=data.name)


if __name__ == "__main__":
    main()
