"""What exact nearest neighbours cost: beside scikit-learn's search, and Tomek links beside imbalanced-learn's.

python tests/benchmarks/neighbors.py            # each case in a process of its own, peers in turn
python tests/benchmarks/neighbors.py --quick    # a smoke run: its figures mean nothing

Rows are Gaussian float32 but where a table says otherwise. Memory is the growth of the resident set at its peak, so
without the rows themselves. The share of right neighbours is counted on 50 rows against float64 differences with every
row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from imblearn.under_sampling import TomekLinks
from sklearn.neighbors import NearestNeighbors

from measuring import in_own_process, peak_mb, resident_mb
from mlmetric.neighbors import kneighbors
from mlmetric.under_sampling import MultiLabelTomekLinks

Array = npt.NDArray[Any]
SIZES = (5_000, 10_000, 20_000, 30_340)
WIDTHS = (8, 256, 2_048)
TABLES = ["search", "tomek", "kinds"]
KINDS = [
    "Gaussian",
    "shifted by 1,000",
    "unit vectors within 1e-4",
    "tight clusters",
    "20 copies of each",
    "integers 0 to 2",
]


def make_rows(kind: str, n: int, d: int) -> Array:
    """Make float32 rows of a kind."""
    rng = np.random.default_rng(0)
    if kind == "20 copies of each":
        return rng.normal(size=(n // 20, d)).astype(np.float32)[rng.integers(0, n // 20, size=n)]
    if kind == "tight clusters":  # 30 of them, each a thousandth as wide as they lie apart
        centres = rng.normal(size=(30, d))
        return (centres[rng.integers(0, 30, size=n)] + 1e-3 * rng.normal(size=(n, d))).astype(np.float32)
    if kind == "integers 0 to 2":
        return rng.integers(0, 3, size=(n, d)).astype(np.float32)
    rows = rng.standard_normal((n, d), dtype=np.float32)
    if kind == "shifted by 1,000":
        rows += 1000
    if kind == "unit vectors within 1e-4":
        rows = rng.standard_normal(d, dtype=np.float32) + 1e-4 * rows
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def plain_product(rows: Array) -> Array:
    """Find the nearest other row by squared norms and a matrix product in float32."""
    norms = np.einsum("ij,ij->i", rows, rows)
    squares = norms[:, None] + norms - 2 * (rows @ rows.T)
    np.fill_diagonal(squares, np.inf)
    return squares.argmin(axis=1)


def method(name: str, rows: Array) -> Callable[[], Array]:
    """Return the call that a case times; it returns the nearest other row of each, or the rows that are kept."""
    if name == "mlmetric":
        return lambda: kneighbors(rows, 1)[1][:, 0]
    if name == "scikit-learn":
        return lambda: NearestNeighbors(n_neighbors=1).fit(rows).kneighbors()[1][:, 0]
    if name == "plain float32":
        return lambda: plain_product(rows)
    classes = np.random.default_rng(1).integers(0, 2, size=len(rows))
    links = (
        MultiLabelTomekLinks(mode="cleaning", mutual=True)
        if name == "mlmetric Tomek"
        else TomekLinks(sampling_strategy="all")
    )

    def kept() -> Array:
        links.fit_resample(rows, classes)
        return links.sample_indices_

    return kept


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in this process: seconds, growth of memory in MB, share of right neighbours, a digest."""
    rows = make_rows(case["kind"], case["n"], case["d"])
    method(case["name"], rows[:300])()  # what is loaded at the first call
    before = resident_mb()
    call = method(case["name"], rows)
    start = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "mb": peak_mb() - before, "digest": zlib.crc32(found.tobytes())}
    if "Tomek" not in case["name"]:
        figures["right"] = share_of_right(rows, found)
    return figures


def share_of_right(rows: Array, found: Array) -> float:
    """Compare with differences in float64; of equally near rows the lowest counts."""
    chosen = np.random.default_rng(2).choice(len(rows), size=min(50, len(rows)), replace=False)
    right = 0
    for row in chosen:
        parts = np.array_split(rows, max(1, rows.size // 2**22))
        squares = np.concatenate([((part.astype(np.float64) - rows[row]) ** 2).sum(axis=1) for part in parts])
        squares[row] = np.inf
        right += int(found[row] == squares.argmin())
    return right / len(chosen)


def compare(kind: str, n: int, d: int, ours: str, peer: str, rounds: int) -> str:
    """Measure both in turn and return a row of the table."""
    results = [
        [in_own_process(__file__, kind=kind, n=n, d=d, name=name) for name in (ours, peer)] for _ in range(rounds)
    ]
    ratio = statistics.median(theirs["seconds"] / mine["seconds"] for mine, theirs in results)
    cells = [f"{n:,}", f"{d:,}"]
    for side in (0, 1):
        seconds, memory = (statistics.median(pair[side][key] for pair in results) for key in ("seconds", "mb"))
        cells += [f"{seconds:.2f}", f"{memory:,.0f}"]
    cells.append(f"{ratio:.2f}")
    if "right" in results[0][0]:
        cells += [f"{min(pair[side]['right'] for pair in results):.3f}" for side in (0, 1)]
    else:
        cells.append("same" if all(mine["digest"] == theirs["digest"] for mine, theirs in results) else "differ")
    return f"| {' | '.join(cells)} |"


def print_table(heads: list[str], rows: list[str]) -> None:
    """Print a table."""
    print(f"\n| {' | '.join(heads)} |\n|{' ---: |' * len(heads)}")
    for row in rows:
        print(row, flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="the tables to print")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="numbers of columns")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each method and case, in turn")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return
    rounds = 1 if options.quick else options.rounds
    sizes, widths = ((300,), (8,)) if options.quick else (SIZES, options.widths)
    cases = [(n, d) for d in widths for n in sizes]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds} rounds")

    costs = ["s", "MB", "peer: s", "MB", "times faster"]
    if "search" in options.only:
        print("\nThe nearest other row of each row, beside NearestNeighbors of scikit-learn")
        rows = (compare("Gaussian", n, d, "mlmetric", "scikit-learn", rounds) for n, d in cases)
        print_table(["n", "d", *costs, "right", "peer: right"], rows)
    if "tomek" in options.only:
        print("\nTomek links of two classes, beside TomekLinks of imbalanced-learn")
        rows = (compare("Gaussian", n, d, "mlmetric Tomek", "imbalanced-learn Tomek", rounds) for n, d in cases)
        print_table(["n", "d", *costs, "rows kept"], rows)
    if "kinds" in options.only:
        kinds_table(options.quick)


def kinds_table(quick: bool) -> None:
    """Print the share of right neighbours of rows of every kind."""
    n, d = (300, 40) if quick else (5_000, 256)
    print(f"\nShare of right neighbours and seconds at {n:,} x {d}, float32")
    print("\n| rows | mlmetric | s | scikit-learn | s | a plain product in float32 | s |\n| --- |" + " ---: |" * 6)
    for kind in KINDS[:1] if quick else KINDS:
        cells = [kind]
        for name in ("mlmetric", "scikit-learn", "plain float32"):
            result = in_own_process(__file__, kind=kind, n=n, d=d, name=name)
            cells += [f"{result['right']:.3f}", f"{result['seconds']:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
