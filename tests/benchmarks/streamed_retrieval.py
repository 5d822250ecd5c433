"""Time and memory of `RetrievalMetrics(streamed=True)`, compared with the blocked product of the embeddings alone.

python tests/benchmarks/streamed_retrieval.py --folder /tmp --rows 10000000    # 5 GB of embeddings in a memory map
python tests/benchmarks/streamed_retrieval.py --quick                          # a smoke test with meaningless figures

The database, random normal clusters with labels, is written to a temporary folder in `--folder`, which is removed at
the end. The product and the metric take turns on shards of a million rows, each of which is read once before. The
product is that of the same blocks: 2,048 rows with at most 512 queries, in float32. Memory is the highest anonymous
resident memory of the process during both, sampled every 5 ms: without the pages of the memory map, which the system
can drop.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from mlmetric.metrics import RetrievalMetrics
from result_tables import ResultTables, add_write_option

Array = npt.NDArray[Any]
BLOCK_ROWS, BLOCK_QUERIES, SHARD_ROWS = 2048, 512, 1_000_000
CHECKED_ROWS = 100_000


class PeakMemory:
    """The highest anonymous resident memory of this process while the context is active, in MB."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.megabytes = max(self.megabytes, anonymous_mb())


def anonymous_mb() -> float:
    """Return the resident memory without pages of files, in MB; 0 where the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return 1024 * int(status.split("RssAnon:")[1].split()[0]) / 1e6


def make_rows(rng: np.random.Generator, centres: Array, size: int, num_labels: int) -> tuple[Array, Array]:
    """Make rows around centres, and labels: three of the cluster, and few others."""
    clusters = rng.integers(0, len(centres), size=size)
    rows = rng.standard_normal((size, centres.shape[1]), dtype=np.float32)
    rows += centres[clusters]
    labels = rng.random((size, num_labels), dtype=np.float32) < 0.02
    for step in range(3):
        labels[np.arange(size), (clusters * (step + 1) + step) % num_labels] = True
    return rows, labels.astype(np.uint8)


def write_database(folder: Path, centres: Array, num_rows: int, num_labels: int) -> tuple[Path, Path]:
    """Write embeddings and labels in parts."""
    free, needed = shutil.disk_usage(folder).free, num_rows * (4 * centres.shape[1] + num_labels)
    if needed > 0.9 * free:
        raise SystemExit(f"`--folder` must have {needed / 1e9:.1f} GB free, got {free / 1e9:.1f}.")
    paths = folder / "embeddings.npy", folder / "labels.npy"
    layouts = (np.float32, centres.shape[1]), (np.uint8, num_labels)
    maps = [
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(num_rows, width))
        for path, (dtype, width) in zip(paths, layouts, strict=True)
    ]
    rng = np.random.default_rng(1)
    for start in range(0, num_rows, 100_000):
        size = min(100_000, num_rows - start)
        for target, rows in zip(maps, make_rows(rng, centres, size, num_labels), strict=True):
            target[start : start + size] = rows
    return paths


def product_seconds(queries: torch.Tensor, refs: Array) -> float:
    """Time the product of all blocks."""
    buffer = torch.empty(BLOCK_QUERIES * BLOCK_ROWS)
    parts = torch.chunk(queries, -(-len(queries) // BLOCK_QUERIES))
    start = time.perf_counter()
    for first in range(0, len(refs), BLOCK_ROWS):
        block = torch.from_numpy(refs[first : first + BLOCK_ROWS])
        for part in parts:
            torch.matmul(part, block.T, out=buffer[: len(part) * len(block)].view(len(part), len(block)))
    return time.perf_counter() - start


def largest_difference(queries: tuple[Array, Array], refs: tuple[Array, Array], k: int) -> float:
    """Return the largest difference of a metric from that of the same rows in memory."""
    tables = [RetrievalMetrics(k=k, full_ranking=False, streamed=streamed) for streamed in (True, False)]
    for table in tables:
        table.update(*queries)
        table.update_ref(*refs)
    found, expected = (table.compute() for table in tables)
    return max(abs(float(found[key]) - float(value)) for key, value in expected.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    add_write_option(parser)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; the system's by default")
    parser.add_argument("--rows", type=int, default=200_000, help="number of rows of the database")
    parser.add_argument("--columns", type=int, default=128, help="number of columns of the embeddings")
    parser.add_argument("--queries", type=int, default=1000, help="number of queries")
    parser.add_argument("--labels", type=int, default=30, help="number of labels")
    parser.add_argument("--k", type=int, default=10, help="number of retrieved rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.queries = 5000, 20
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, options.columns), dtype=np.float32)
    queries = make_rows(rng, centres, options.queries, options.labels)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = write_database(Path(folder), centres, options.rows, options.labels)
        embeddings, labels = (np.load(path, mmap_mode="r") for path in paths)
        writable = np.load(paths[0], mmap_mode="c")  # torch warns about arrays that are read-only
        table = RetrievalMetrics(k=options.k, full_ranking=False, streamed=True)
        table.update(*queries)
        query_rows = torch.from_numpy(queries[0])
        before = anonymous_mb()
        product = seconds = 0.0
        with PeakMemory() as peak:
            for first in range(0, options.rows, SHARD_ROWS):
                shard = slice(first, first + SHARD_ROWS)
                embeddings[shard].max()
                product += product_seconds(query_rows, writable[shard])
                start = time.perf_counter()
                table.update_ref(embeddings[shard], labels[shard])
                seconds += time.perf_counter() - start
            start = time.perf_counter()
            values = table.compute()
            seconds += time.perf_counter() - start
        checked = (np.array(embeddings[:CHECKED_ROWS]), np.array(labels[:CHECKED_ROWS]))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.labels} labels")
    print(f"NDCG@{options.k}: {values[f'ndcg_at_{options.k}']:.4f}")
    header = [
        "queries",
        "rows",
        "columns",
        "s",
        "product alone: s",
        "times the product",
        "MB",
        "MB before",
        "difference from memory",
    ]
    cells = [f"{options.queries:,}", f"{options.rows:,}", f"{options.columns:,}", f"{seconds:.2f}", f"{product:.2f}"]
    cells += [f"{seconds / product:.2f}", f"{peak.megabytes:,.0f}", f"{before:,.0f}"]
    cells.append(f"{largest_difference(queries, checked, options.k):.1e}")
    ResultTables(options.write).show("streamed_retrieval", header, [cells], num_text=0)


if __name__ == "__main__":
    main()
