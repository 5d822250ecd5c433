"""Time and memory of metrics, compared with scikit-learn, torchmetrics and pytorch-metric-learning.

python tests/benchmarks/metrics.py            # each method in a process of its own
python tests/benchmarks/metrics.py --quick    # a smoke test with small data, whose figures mean nothing

Scores and embeddings are synthetic: Gaussian, with higher scores for positives, passed through a sigmoid; labels of
higher index are rarer. Each call is made once to warm up and then timed several times, or once if it takes long; the
median is reported. Memory is the growth of the peak resident set size, so it excludes the input.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from measuring import in_own_process, limit_memory, peak_mb, resident_mb
from mlmetric.metrics import MultiLabelMetrics, RetrievalMetrics, f1, mean_average_precision, ndcg_at_k, r_precision
from result_tables import ResultTables, add_write_option

SIZES = ((30_000, 30, 0.1), (40_000, 80, 0.036), (20_000, 1_000, 0.007))
"""Rows, labels, and the share of entries that are positive."""
SEARCHES = (1_000, 2_000, 4_000, 30_000)
DIM = 128
LONG = 5.0
"""Calls that take longer than this, in seconds, are timed once."""
REPEATS = 5


def make_scores(n: int, num_labels: int, density: float) -> tuple[Tensor, Tensor]:
    """Return scores, float32 in [0, 1], and true labels, bool."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.arange(1, num_labels + 1) ** -0.7
    target = torch.rand(n, num_labels, generator=generator) < shares * density / shares.mean()
    return torch.sigmoid(torch.randn(n, num_labels, generator=generator) + 2 * target - 3), target


def make_embeddings(n: int) -> tuple[Tensor, Tensor]:
    """Return embeddings that depend on 30 labels, three for each row on average, and these labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(n, 30, generator=generator) < 0.1
    return torch.randn(n, DIM, generator=generator) + labels.float() @ torch.randn(30, DIM, generator=generator), labels


def score_call(name: str, n: int, num_labels: int, density: float) -> Callable[[], Any]:
    """Return a call that computes metrics of scores."""
    preds, target = make_scores(n, num_labels, density)
    arrays, numbers = (target.numpy(), preds.numpy()), target.int()
    predicted = arrays[1] >= 0.5
    all_metrics = MultiLabelMetrics()
    all_metrics.update(preds, target)
    calls = {
        "mAP: mlmetric": lambda: mean_average_precision(preds, target),
        "mAP: scikit-learn": lambda: sk.average_precision_score(*arrays),
        "mAP: torchmetrics": lambda: multilabel_average_precision(preds, numbers, num_labels),
        "macro F1: mlmetric": lambda: f1(preds, target),
        "macro F1: scikit-learn": lambda: sk.f1_score(arrays[0], predicted, average="macro", zero_division=0),
        "macro F1: torchmetrics": lambda: multilabel_f1_score(preds, numbers, num_labels),
        "all metrics: mlmetric": lambda: all_metrics.forward(preds, target),
    }
    return calls[name]


def retrieval_call(name: str, n: int) -> Callable[[], Any]:
    """Return a call that computes retrieval metrics of all rows among all others."""
    embeddings, labels = make_embeddings(n)

    def product() -> None:
        for rows in embeddings.split(64):
            rows @ embeddings.T

    def all_metrics() -> dict[str, Tensor]:
        table = RetrievalMetrics()
        table.update(embeddings, labels)
        return table.compute()

    def accuracy_calculator() -> dict[str, float]:
        calculator = AccuracyCalculator(
            include=("mean_average_precision", "r_precision"),
            k=n - 1,
            device=torch.device("cpu"),
            knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
            label_comparison_fn=lambda a, b: ((a > 0) & (b > 0)).any(dim=-1),
        )
        return calculator.get_accuracy(embeddings, labels, ref_includes_query=True)

    calls = {
        "product": product,
        "all of RetrievalMetrics": all_metrics,
        "NDCG@10": lambda: ndcg_at_k(embeddings, labels),
        "R-precision": lambda: r_precision(embeddings, labels),
        "AccuracyCalculator": accuracy_calculator,
    }
    return calls[name]


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in this process: median seconds, growth of memory in MB."""
    name, sizes = case["name"], case["sizes"]
    make = score_call if len(sizes) > 1 else retrieval_call
    make(name, *((200, 5, 0.2) if len(sizes) > 1 else (100,)))()  # imports and other work of the first call
    call = make(name, *sizes)
    before = resident_mb()
    seconds: list[float] = []
    try:
        while len(seconds) <= REPEATS and not (seconds and seconds[0] > LONG):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error):
            raise
        return {"seconds": None}
    return {"seconds": statistics.median(seconds[1:] or seconds), "mb": peak_mb() - before}


def run_here(_script: str, **case: Any) -> dict[str, Any]:
    """Run one case in this process."""
    return measure(case)


SCORE_HEADS = ["n x L", "metric", "mlmetric: ms", "mlmetric: MB", "times mAP"]
SCORE_HEADS += [f"{peer}: {figure}" for peer in ("scikit-learn", "torchmetrics") for figure in ("ms", "times as long")]


def score_rows(run: Callable[..., dict[str, Any]], sizes: tuple[tuple[int, int, float], ...]) -> Iterator[list[str]]:
    """Yield the rows of the table of metrics of scores."""
    for size in sizes:
        shape = f"{size[0]:,} x {size[1]:,}"
        own: dict[str, float] = {}
        for metric in ("mAP", "macro F1"):
            found = {
                peer: run(__file__, name=f"{metric}: {peer}", sizes=size)
                for peer in ("mlmetric", "scikit-learn", "torchmetrics")
            }
            own[metric] = found["mlmetric"]["seconds"]
            cells = [shape, metric, f"{1e3 * own[metric]:.1f}", f"{found['mlmetric']['mb']:.0f}", ""]
            for peer in ("scikit-learn", "torchmetrics"):
                seconds = found[peer]["seconds"]
                cells += (
                    ["out of memory", ""]
                    if seconds is None
                    else [f"{1e3 * seconds:.0f}", f"{seconds / own[metric]:.1f}"]
                )
            yield cells
        table = run(__file__, name="all metrics: mlmetric", sizes=size)
        milliseconds, times = f"{1e3 * table['seconds']:.1f}", f"{table['seconds'] / own['mAP']:.2f}"
        yield [shape, "all metrics", milliseconds, f"{table['mb']:.0f}", times, *[""] * 4]


SEARCHED = ("NDCG@10", "R-precision", "all of RetrievalMetrics", "AccuracyCalculator")
SEARCH_HEADS = ["rows", "product in float32: s"]
SEARCH_HEADS += [f"{name}: {figure}" for name in SEARCHED for figure in ("s", "MB", "times the product")]


def search_rows(run: Callable[..., dict[str, Any]], sizes: tuple[int, ...]) -> Iterator[list[str]]:
    """Yield the rows of the table of retrieval metrics, with all rows as queries."""
    for n in sizes:
        product = run(__file__, name="product", sizes=[n])["seconds"]
        cells = [f"{n:,}", f"{product:.3f}"]
        for name in SEARCHED:
            found = run(__file__, name=name, sizes=[n])
            if found["seconds"] is None:
                cells += ["out of memory", "", ""]
            else:
                cells += [f"{found['seconds']:.2f}", f"{found['mb']:.0f}", f"{found['seconds'] / product:.1f}"]
        yield cells


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    add_write_option(parser)
    parser.add_argument("--only", nargs="+", choices=["scores", "retrieval"], default=["scores", "retrieval"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="No positive")  # warnings of scikit-learn and torchmetrics
    if options.case:
        limit_memory()
        print(json.dumps(measure(json.loads(options.case))))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    run, tables = run_here if options.quick else in_own_process, ResultTables(options.write)
    if "scores" in options.only:
        print("\nScores")
        rows = score_rows(run, ((300, 8, 0.2),) if options.quick else SIZES)
        tables.show("metrics", SCORE_HEADS, rows, num_text=2)
    if "retrieval" in options.only:
        print(f"\nRetrieval, {DIM} columns, 30 labels")
        rows = search_rows(run, (200,) if options.quick else SEARCHES)
        tables.show("retrieval_metrics", SEARCH_HEADS, rows, num_text=0)


if __name__ == "__main__":
    main()
