"""Time and memory of exact nearest neighbours, compared with scikit-learn, and of Tomek links, with imbalanced-learn.

python tests/benchmarks/neighbors.py            # each case in a separate process, both libraries in turn
python tests/benchmarks/neighbors.py --quick    # a smoke test, whose figures are meaningless

Rows are float32 and normally distributed unless a table says otherwise. Memory is the peak growth of the resident set,
which excludes the rows themselves. The fraction of correct neighbours is that of 50 rows, compared with float64
differences from all rows.
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
from result_tables import ResultTables, add_write_option

Array = npt.NDArray[Any]
SIZES = (5_000, 10_000, 20_000, 30_340)
WIDTHS = (8, 256, 2_048)
TABLES = ["search", "tomek", "kinds"]
KINDS = [
    "Gaussian",
    "shifted by 1,000",
    "unit vectors within 1e-4",
    "tight clusters",
    "20 duplicates of each",
    "integers 0 to 2",
]


def make_rows(kind: str, n: int, d: int) -> Array:
    """Make float32 rows of a kind."""
    rng = np.random.default_rng(0)
    if kind == "20 duplicates of each":
        return rng.normal(size=(n // 20, d)).astype(np.float32)[rng.integers(0, n // 20, size=n)]
    if kind == "tight clusters":  # 30 clusters, a thousand times narrower than their distances
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
    """Return the function that a case times, which returns the nearest other row of each row, or the rows kept."""
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
    """Run one case in this process: seconds, memory growth in MB, fraction of correct neighbours, checksum."""
    rows = make_rows(case["kind"], case["n"], case["d"])
    method(case["name"], rows[:300])()  # warm-up, for what the first call loads
    before = resident_mb()
    function = method(case["name"], rows)
    start = time.perf_counter()
    found = function()
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "mb": peak_mb() - before, "checksum": zlib.crc32(found.tobytes())}
    if "Tomek" not in case["name"]:
        figures["correct"] = fraction_correct(rows, found)
    return figures


def fraction_correct(rows: Array, found: Array) -> float:
    """Compare with float64 differences; of rows at the same distance, the lowest index is correct."""
    chosen = np.random.default_rng(2).choice(len(rows), size=min(50, len(rows)), replace=False)
    num_correct = 0
    for row in chosen:
        parts = np.array_split(rows, max(1, rows.size // 2**22))
        squares = np.concatenate([((part.astype(np.float64) - rows[row]) ** 2).sum(axis=1) for part in parts])
        squares[row] = np.inf
        num_correct += int(found[row] == squares.argmin())
    return num_correct / len(chosen)


def compare(kind: str, n: int, d: int, ours: str, peer: str, rounds: int) -> list[str]:
    """Measure both in turn, and return a row of the table."""
    results = [
        [in_own_process(__file__, kind=kind, n=n, d=d, name=name) for name in (ours, peer)] for _ in range(rounds)
    ]
    ratio = statistics.median(theirs["seconds"] / mine["seconds"] for mine, theirs in results)
    cells = [f"{n:,}", f"{d:,}"]
    for side in (0, 1):
        seconds, memory = (statistics.median(pair[side][key] for pair in results) for key in ("seconds", "mb"))
        cells += [f"{seconds:.2f}", f"{memory:,.0f}"]
    cells.append(f"{ratio:.2f}")
    if "correct" in results[0][0]:
        cells += [f"{min(pair[side]['correct'] for pair in results):.3f}" for side in (0, 1)]
    else:
        cells.append("same" if all(mine["checksum"] == theirs["checksum"] for mine, theirs in results) else "differ")
    return cells


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    add_write_option(parser)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="the tables to print")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="numbers of columns")
    parser.add_argument("--rounds", type=int, default=3, help="number of processes for each method and case")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return
    rounds = 1 if options.quick else options.rounds
    sizes, widths = ((300,), (8,)) if options.quick else (SIZES, options.widths)
    cases = [(n, d) for d in widths for n in sizes]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds} rounds")

    tables = ResultTables(options.write)
    if "search" in options.only:
        print("\nNearest other row of each row, compared with NearestNeighbors of scikit-learn")
        rows = (compare("Gaussian", n, d, "mlmetric", "scikit-learn", rounds) for n, d in cases)
        heads = [*cost_heads("scikit-learn"), "mlmetric: correct", "scikit-learn: correct"]
        tables.show("neighbors", heads, rows, num_text=0)
    if "tomek" in options.only:
        print("\nTomek links of two classes, compared with TomekLinks of imbalanced-learn")
        rows = (compare("Gaussian", n, d, "mlmetric Tomek", "imbalanced-learn Tomek", rounds) for n, d in cases)
        tables.show("tomek_links", [*cost_heads("imbalanced-learn"), "rows kept"], rows, num_text=0)
    if "kinds" in options.only:
        kinds_table(options.quick, tables)


def cost_heads(peer: str) -> list[str]:
    """Return the titles of the sizes, and of the seconds and MB of both libraries."""
    return ["n", "d", *(f"{name}: {unit}" for name in ("mlmetric", peer) for unit in ("s", "MB")), "times faster"]


def kinds_table(quick: bool, tables: ResultTables) -> None:
    """Print the fraction of correct neighbours for each kind of rows."""
    n, d = (300, 40) if quick else (5_000, 256)
    print(f"\nFraction of correct neighbours and seconds at {n:,} x {d}, float32")
    names = ("mlmetric", "scikit-learn", "plain float32 product")
    tables.show(
        "neighbors_kinds",
        ["rows", *(f"{name}: {figure}" for name in names for figure in ("correct", "s"))],
        (kind_row(kind, n, d) for kind in (KINDS[:1] if quick else KINDS)),
    )


def kind_row(kind: str, n: int, d: int) -> list[str]:
    """Measure each method on one kind of rows, and return a row of the table."""
    cells = [kind]
    for name in ("mlmetric", "scikit-learn", "plain float32"):
        result = in_own_process(__file__, kind=kind, n=n, d=d, name=name)
        cells += [f"{result['correct']:.3f}", f"{result['seconds']:.2f}"]
    return cells


if __name__ == "__main__":
    main()
