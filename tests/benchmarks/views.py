"""Fusion of views, complete and with half of the rows of a view missing, on a real set with two or more views.

python tests/benchmarks/views.py --data FILE --output JSON    # .npz: view_NAME of each view, Y, perhaps n_development
python tests/benchmarks/views.py --quick                      # a quick check on a synthetic set, without meaning

Protocol. The first `n_development` rows are training rows of every split; the other rows are split anew by each seed,
stratified, so that 30 % of all rows are test rows. The dropout of views and the embeddings of missing views were chosen
on development rows only, the default of `fusion` on synthetic posters. In half of the rows, drawn at random, the last
view is missing: in no part of the rows, in the test rows, in the training rows, or in both. Each fusion is a
`MetricClassifier` with default settings. A view alone is the classifier, and the head, that late fusion trains for this
view, on the rows that have it; test rows without the view get the mean logits and the mean embedding of the training
rows. Test rows are the queries, all training rows the database. Seconds are CPU seconds of one training, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from measuring import results
from mlmetric._atomic_write import atomic_write
from mlmetric.data import join_views, stratified_split
from mlmetric.estimators import MetricClassifier
from mlmetric.metrics import f1, mean_average_precision, ndcg_at_k
from mlmetric.training import apply_in_batches
from quality_tables import cell
from result_tables import ResultTables, add_write_option

FUSIONS = ("late", "concat", "gated")
GAPS = {"nowhere": (False, False), "test rows": (False, True), "training rows": (True, False), "both": (True, True)}
MEASURES = {"map": "mAP", "ndcg": "NDCG@10", "macro_f1": "macro F1", "overall_f1": "overall F1", "seconds": "seconds"}


def read_set(path: Path) -> tuple[dict[str, np.ndarray], Tensor, int]:
    """Read the views, the labels and the number of development rows."""
    with np.load(path) as data:
        views = {name.removeprefix("view_"): data[name] for name in data if name.startswith("view_")}
        if len(views) < 2 or "Y" not in data:
            raise SystemExit(f"{path} must contain at least two arrays view_NAME, and Y, got {', '.join(data)}.")
        n_development = int(data["n_development"]) if "n_development" in data else 0
        return views, torch.from_numpy(data["Y"].astype(np.float32)), n_development


def synthetic_set() -> tuple[dict[str, np.ndarray], Tensor, int]:
    """Generate a small set for a quick check."""
    rng = np.random.default_rng(0)
    Y = rng.integers(0, 2, (150, 3))
    views = {name: Y @ rng.normal(size=(3, size)) + rng.normal(size=(150, size)) for name, size in (("a", 4), ("b", 6))}
    return views, torch.from_numpy(Y.astype(np.float32)), 0


def split(labels: Tensor, n_development: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return training rows and test rows, 30 % of all rows."""
    others = torch.arange(n_development, len(labels))
    share = 0.3 * len(labels) / len(others)
    train, test = stratified_split(labels[others], (1 - share, share), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.arange(n_development), others[train]]), others[test]


def run(
    views: dict[str, np.ndarray], labels: Tensor, n_development: int, fusion: str, gaps_in_training: bool, seed: int
) -> dict[str, dict[str, float]]:
    """Train once, and measure test rows with and without gaps; of late fusion also each view alone."""
    torch.set_num_threads(1)
    complete, columns = join_views(views)
    gaps = complete.copy()
    missing = np.random.default_rng(seed).random(len(labels)) < 0.5
    gaps[missing, list(columns.values())[-1]] = np.nan
    train, test = split(labels, n_development, seed)
    rows = (gaps if gaps_in_training else complete)[train]
    started = time.process_time()
    classifier = MetricClassifier(views=columns, fusion=fusion, random_state=seed).fit(rows, labels[train].numpy())
    seconds = time.process_time() - started
    results = {}
    for name, (in_training, in_test) in GAPS.items():
        if in_training != gaps_in_training:
            continue
        queries = (gaps if in_test else complete)[test]
        results[f"{fusion}/{name}"] = measure(classifier, rows, labels[train], queries, labels[test], seconds)
        if fusion == "late":
            for view, outputs in alone(classifier, rows, queries).items():
                results[f"{view} alone/{name}"] = scores(*outputs, labels[train], labels[test])
    return results


def measure(
    classifier: MetricClassifier, rows: np.ndarray, labels: Tensor, queries: np.ndarray, target: Tensor, seconds: float
) -> dict[str, float]:
    """Measure a fused classifier and its embedding."""
    logits, *embeddings = (
        torch.from_numpy(values)
        for values in (classifier.decision_function(queries), *map(classifier.transform, (queries, rows)))
    )
    predictions = torch.from_numpy(classifier.predict(queries))
    decisions = {
        name: float(f1(predictions, target, threshold=0.5, average=average, zero_division=0))
        for name, average in (("macro_f1", "macro"), ("overall_f1", "micro"))
    }
    return scores(logits, *embeddings, labels, target) | decisions | {"seconds": seconds}


def alone(classifier: MetricClassifier, rows: np.ndarray, queries: np.ndarray) -> dict[str, list[Tensor]]:
    """Return logits and embeddings of queries, and embeddings of training rows, of each view alone."""
    found = {}
    for number, view in enumerate(classifier.views):
        outputs = []
        for module, features in (
            (classifier.classifier_, queries),
            (classifier.head_, queries),
            (classifier.head_, rows),
        ):
            columns = module.views[view]
            part = torch.from_numpy(features[:, columns])
            present = ~part[:, 0].isnan()
            values = torch.split(module.missing, module.sizes)[number].repeat(len(part), 1)
            values[present] = apply_in_batches(module.members[number], part[present])
            outputs.append(values)
        found[view] = outputs
    return found


def scores(logits: Tensor, queries: Tensor, refs: Tensor, labels: Tensor, target: Tensor) -> dict[str, float]:
    """Return mAP of logits and NDCG@10 of embeddings."""
    return {
        "map": float(mean_average_precision(logits, target)),
        "ndcg": float(ndcg_at_k(queries, target, refs, labels, k=10)),
    }


def main() -> None:
    """Run what the file of results does not contain, and print a table for each place of the gaps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz file")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--output", type=Path, help="JSON file of the results, which a later call continues")
    parser.add_argument("--quick", action="store_true", help="a synthetic set and one seed")
    add_write_option(parser)
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("pass --data FILE, or --quick for a quick check")
    data = synthetic_set() if options.quick else read_set(options.data)
    seeds = range(1 if options.quick else options.seeds)
    done = json.loads(options.output.read_text()) if options.output is not None and options.output.exists() else {}
    cases = {
        f"{fusion}/{gaps}/{seed}": (*data, fusion, gaps, seed)
        for seed in seeds
        for gaps in (0, 1)
        for fusion in FUSIONS
    }
    missing = {key: case for key, case in cases.items() if key not in done}
    for key, result in results(run, missing, jobs=1 if options.quick else options.jobs):
        done[key] = result
        if options.output is not None:
            with atomic_write(options.output) as file:
                file.write(json.dumps(done, indent=1).encode())
    tables = ResultTables(options.write)
    for gaps in GAPS:
        print(f"\nMissing in half of the rows: {gaps}; mean (deviation) of {len(seeds)} splits")
        by_method: dict[str, list[dict[str, float]]] = {}
        for key in cases:
            for name, row in done[key].items():
                method, where = name.split("/")
                if where == gaps:
                    by_method.setdefault(method, []).append(row)
        cells = (row_of(method, rows) for method, rows in by_method.items())
        tables.show("views", ["method", *MEASURES.values()], cells, **{"missing in half of": gaps})


def row_of(method: str, rows: list[dict[str, float]]) -> list[str]:
    """Return the cells of a method."""
    values = {name: [row[name] for row in rows] for name in rows[0]}
    seconds = f"{statistics.fmean(values['seconds']):.0f}" if "seconds" in values else ""
    return [method, *(cell(values[name]) if name in values else "" for name in list(MEASURES)[:-1]), seconds]


if __name__ == "__main__":
    main()
