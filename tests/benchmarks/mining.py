"""Time and memory of mining, compared with pytorch-metric-learning, a loop, and computing and sorting the distances.

python tests/benchmarks/mining.py            # each case in its own process, alternating with the peer
python tests/benchmarks/mining.py --only small    # 16 to 512 rows, calls alternating with those of the peers
python tests/benchmarks/mining.py --quick    # a smoke test with meaningless figures
python tests/benchmarks/mining.py --device cuda

Batches are random: 128-d Gaussian embeddings; one-hot labels of equal classes; multi-hot labels of 30 skewed labels,
about 4.3 per row. Memory is the peak growth of the resident set (on CUDA of the allocated memory), including the
returned triplets; "beyond output" is without their 24 bytes each.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.miners import BatchEasyHardMiner, TripletMarginMiner
from torch import Tensor

from measuring import in_own_process, limit_memory, peak_mb, resident_mb
from mlmetric.losses import MultiLabelLoss
from mlmetric.miners import MultiLabelSemiHardMiner
from mlmetric.similarity import Jaccard, jaccard
from result_tables import ResultTables, add_write_option

CAPS = {
    "1/1, 1 per anchor": (1, 1, 1),
    "3/3, 100 per anchor": (3, 3, 100),
}
SETTINGS = ["1/1, 1 per anchor", "1/1, 1 per anchor, random order", "3/3, 100 per anchor"]
TABLES = ["small", "one-hot", "without-caps", "with-caps", "profile"]
Triplets = tuple[Tensor, Tensor, Tensor]


def one_hot_batch(n: int, classes: str, device: str) -> tuple[Tensor, Tensor]:
    """Return embeddings and class ids: 10 classes, or 8 rows per class."""
    num_classes = 10 if classes == "10 classes" else n // 8
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, 128, generator=generator)
    return embeddings.to(device), (torch.arange(n) % num_classes).to(device)


def multi_hot_batch(n: int, device: str) -> tuple[Tensor, Tensor]:
    """Return embeddings and multi-hot labels of 30 skewed labels, about 4.3 per row."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.linspace(0.05, 0.35, 30)
    labels = (torch.rand(n, 30, generator=generator) < 4.3 * shares / shares.sum()).long()
    return torch.randn(n, 128, generator=generator).to(device), labels.to(device)


def loop(embeddings: Tensor, labels: Tensor) -> Triplets:
    """Mine hard triplets by loops over anchors, positives and negatives, as the reference implementation does."""
    distance, similarity = LpDistance()(embeddings).tolist(), jaccard(labels).tolist()
    found = []
    for a, (distances, similarities) in enumerate(zip(distance, similarity, strict=True)):
        positives = [j for j, s in enumerate(similarities) if s > 0 and j != a]
        for p in sorted(positives, key=distances.__getitem__, reverse=True):
            d_ap, s_ap = distances[p], similarities[p]
            for n, s_an in enumerate(similarities):
                if s_an < s_ap and distances[n] < d_ap and n != a:
                    found.append((a, p, n))
    return torch.tensor(found).unbind(1)


def method(section: str, setting: str, name: str, n: int, device: str) -> Callable[[], Any]:
    """Return the call that a case times."""
    if section == "one-hot":
        classes, kind = setting.split(", ")
        embeddings, ids = one_hot_batch(n, classes, device)
        if name == "pytorch-metric-learning":
            miner = TripletMarginMiner(margin=0.2, type_of_triplets=kind)
            return lambda: miner(embeddings, ids)
        ours = MultiLabelSemiHardMiner(margin=0.2, type_of_triplets=kind)
        one_hot = torch.nn.functional.one_hot(ids)
        return lambda: ours(embeddings, one_hot)
    embeddings, labels = multi_hot_batch(n, device)
    if name == "loop":
        return lambda: loop(embeddings, labels)
    if name == "cdist and torch.sort":
        return lambda: torch.cdist(embeddings, embeddings).sort(dim=1)
    related, disjoint, per_anchor = CAPS.get(setting.removesuffix(", random order"), (None, None, None))
    capped = MultiLabelSemiHardMiner(
        similarity=Jaccard(),
        max_partial_per_positive=related,
        max_disjoint_per_positive=disjoint,
        max_triplets_per_anchor=per_anchor,
        positive_order="random" if "random order" in setting else "farthest",
    )
    return lambda: capped(embeddings, labels)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in this process: median seconds, peak memory in MB, triplets and a digest of their set."""
    device = case["device"]
    method(case["section"], case["setting"], case["name"], 64, device)()  # loads modules
    call = method(**case)
    limit_memory()
    before = resident_mb(device)
    times: list[float] = []
    try:
        # The first call gives the peak. It includes the allocation of memory by the system, and is timed only if it is
        # too long to be repeated.
        while not times or (len(times) < 6 and sum(times[1:]) < 2 and sum(times) < 20):
            result = None
            start = time.perf_counter()
            result = call()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            if len(times) == 1:
                peak = peak_mb(device)
        seconds = statistics.median(times[1:] or times)
    except (RuntimeError, MemoryError):
        return {"seconds": None}
    if case["name"] == "cdist and torch.sort":
        return {"seconds": seconds, "mb": peak - before, "triplets": 0, "digest": 0}
    digest = sum(
        int((((a * case["n"] + p) * case["n"] + n) * 0x9E3779B97F4A7C15 % 2**31).sum())
        for a, p, n in zip(*(part.split(2**20) for part in result), strict=True)
    )
    return {
        "seconds": seconds,
        "mb": peak - before,
        "triplets": len(result[0]),
        "digest": digest,
    }


def compare(section: str, setting: str, n: int, peer: str | None, device: str, rounds: int) -> list[str]:
    """Measure this library and the peer alternately, and return a row of the table."""
    rows: dict[str, list[dict[str, Any]]] = {"mlmetric": []} | ({peer: []} if peer else {})
    for _ in range(rounds):
        for name in rows:
            rows[name].append(in_own_process(__file__, section=section, setting=setting, name=name, n=n, device=device))
    ours, theirs = ([row for row in rows.get(name, []) if row["seconds"] is not None] for name in ("mlmetric", peer))
    ours, theirs = (ours, theirs) if len(ours) == len(theirs) or not theirs else (ours[:1], theirs[:1])
    cells = [str(n), setting, *figures(ours)]
    if theirs and ours:
        ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True))
        same = {True: "same", False: f"{theirs[0]['triplets']:,}"}[ours[0]["digest"] == theirs[0]["digest"]]
        if peer == "cdist and torch.sort":
            ratio, same = 1 / ratio, ""
        cells += [*figures(theirs)[1:4:2], f"{ratio:.1f}", same]
    else:
        cells += ["does not fit" if peer and ours else "not run", "", "", ""]
    return cells


def figures(rows: list[dict[str, Any]]) -> list[str]:
    """Return triplets, milliseconds, MB and MB beyond the output, as text."""
    if not rows:
        return ["", "does not fit", "", ""]
    seconds, peak = (statistics.median(row[key] for row in rows) for key in ("seconds", "mb"))
    triplets = rows[0]["triplets"]
    return [f"{triplets:,}", f"{1e3 * seconds:,.1f}", f"{peak:,.0f}", f"{max(0.0, peak - 24e-6 * triplets):,.0f}"]


def heads_of(peer: str, ratio: str) -> list[str]:
    """Return the titles of a comparison."""
    own = ["N", "setting", "triplets", "ms", "MB", "MB beyond output"]
    return [*own, f"{peer}: ms", f"{peer}: MB beyond output", ratio, f"{peer}: triplets"]


def shares(n: int, setting: str, device: str) -> list[str]:
    """Profile one call, and return the shares of its time as a row of the table."""
    call = method("multi-hot", setting, "mlmetric", n, device)
    call()
    profile = cProfile.Profile()
    profile.runcall(call)
    total = sum(entry[2] for entry in pstats.Stats(profile).stats.values())
    spent = dict.fromkeys(("distance", "similarity", "sort", "output"), 0.0)
    parts = {
        "distance_matrix": "distance",
        "compare_labels": "similarity",
        "argsort_rows": "sort",
        "expand": "output",
        "_concatenate": "output",
    }
    for (_, _, function), entry in pstats.Stats(profile).stats.items():
        if function in parts:
            spent[parts[function]] += entry[3]
    rest = total - sum(spent.values())
    cells = [f"{100 * seconds / total:.0f} %" for seconds in (*spent.values(), rest)]
    return [str(n), setting, f"{1e3 * total:,.1f}", *cells]


def small_calls(n: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return the calls that are timed alternately for one batch size: those of this library, then the peers."""
    embeddings, ids = one_hot_batch(n, "8 per class", device)
    one_hot = torch.nn.functional.one_hot(ids)
    _, labels = multi_hot_batch(n, device)
    graded = {
        "1/1 caps": {"max_partial_per_positive": 1, "max_disjoint_per_positive": 1},
        "ten of random positives": {"positive_order": "random", "max_triplets_per_anchor": 10},
        "no caps": {},
    }
    miners = {name: MultiLabelSemiHardMiner(similarity=Jaccard(), **caps) for name, caps in graded.items()}
    own, triplet_margin, easy_hard = (
        MultiLabelSemiHardMiner(),
        TripletMarginMiner(type_of_triplets="hard"),
        BatchEasyHardMiner(),
    )
    return {
        "one-hot": lambda: own(embeddings, one_hot),
        **{name: partial(miner, embeddings, labels) for name, miner in miners.items()},
        "`TripletMarginMiner`": lambda: triplet_margin(embeddings, ids),
        "`BatchEasyHardMiner`": lambda: easy_hard(embeddings, ids),
        "cdist and sort": lambda: torch.cdist(embeddings, embeddings).sort(dim=1),
        "`MultiLabelLoss`": partial(forward_and_backward, MultiLabelLoss(ContrastiveLoss()), embeddings, one_hot),
        "`ContrastiveLoss`": partial(forward_and_backward, ContrastiveLoss(), embeddings, ids),
    }


def forward_and_backward(loss: Any, embeddings: Tensor, labels: Tensor) -> None:
    """Compute a loss and its gradient."""
    loss(embeddings.clone().requires_grad_(), labels).backward()


def small_table(quick: bool, device: str, rounds: int, tables: ResultTables) -> None:
    """Print the times of small batches: medians of calls that alternate in this process, on the CPU of CPU time."""
    rows, clock = [], time.perf_counter if device == "cuda" else time.process_time
    for n in (16,) if quick else (16, 32, 64, 128, 256, 512):
        calls = small_calls(n, device)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for repetition in range(2 if quick else max(4, 10 * rounds * 32 // n)):
            for name, call in calls.items():
                start = clock()
                call()
                if device == "cuda":
                    torch.cuda.synchronize()
                if repetition:  # the first call loads modules and allocates memory
                    times[name].append(clock() - start)
        rows.append([str(n), *(f"{1e3 * statistics.median(values):.2f}" for values in times.values())])
    print("\nSmall batches: ms; the second to the fourth with 30 skewed labels and Jaccard, the peers on class ids")
    tables.show("mining_small", ["N", *calls], rows, num_text=0)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    add_write_option(parser)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3, help="processes for each method and case")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="the tables to print")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(json.loads(options.case))))
        return
    rounds, device = (1, options.device) if options.quick else (options.rounds, options.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, median of {rounds} rounds")
    tables = ResultTables(options.write)
    for name in options.only:
        TABLE_OF[name](options.quick, device, rounds, tables)


def one_hot_table(quick: bool, device: str, rounds: int, tables: ResultTables) -> None:
    """Print the comparison with pytorch-metric-learning on one-hot labels."""
    settings = [f"{classes}, {kind}" for classes in ("8 per class", "10 classes") for kind in ("all", "semihard")]
    cases = [("8 per class, all", 64)] if quick else [(s, n) for n in (256, 512, 1024, 2048) for s in settings]
    peer = "pytorch-metric-learning"
    rows = (compare("one-hot", setting, n, peer, device, rounds) for setting, n in cases)
    print("\nOne-hot labels, without caps")
    tables.show("mining_one_hot", heads_of(peer, "times faster"), rows, num_text=2)


def without_caps_table(quick: bool, device: str, rounds: int, tables: ResultTables) -> None:
    """Print the comparison with a loop on multi-hot labels; the loop runs once for 512 rows, and not for 1,024."""
    sizes = [64] if quick else [256, 512, 1024]
    rows = (
        compare("multi-hot", "no caps", n, "loop" if n <= 512 else None, device, 1 if n == 512 else rounds)
        for n in sizes
    )
    print("\nMulti-hot labels, Jaccard, hard, without caps")
    tables.show("mining_without_caps", heads_of("loop", "times faster"), rows, num_text=2)


def with_caps_table(quick: bool, device: str, rounds: int, tables: ResultTables) -> None:
    """Print the comparison of mining with caps and computing and sorting the distances."""
    sizes = (256, 512, 1024, 2048, 4096, 8192)
    cases = [("1/1, 1 per anchor", 64)] if quick else [(setting, n) for setting in SETTINGS for n in sizes]
    peer = "cdist and torch.sort"
    rows = (compare("multi-hot", setting, n, peer, device, rounds) for setting, n in cases)
    print("\nMulti-hot labels, Jaccard, hard, with caps")
    tables.show("mining_with_caps", heads_of(peer, "times as long"), rows, num_text=2)


def profile_table(quick: bool, device: str, rounds: int, tables: ResultTables) -> None:
    """Print the shares of the time."""
    print("\nShares of the time, by profiling")
    heads = ["N", "setting", "ms", "distance", "similarity", "sort", "output", "other"]
    cases = [(256, "no caps"), (1024, "no caps"), *((n, setting) for n in (1024, 8192) for setting in SETTINGS)]
    rows = (shares(n, setting, device) for n, setting in ([(64, "no caps")] if quick else cases))
    tables.show("mining_profile", heads, rows, num_text=2)


TABLE_OF = dict(
    zip(TABLES, (small_table, one_hot_table, without_caps_table, with_caps_table, profile_table), strict=True)
)


if __name__ == "__main__":
    main()
