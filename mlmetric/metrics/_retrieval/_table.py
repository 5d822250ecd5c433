"""Every metric of retrieval, of embeddings that come batch by batch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._accumulator import Accumulator, Batch, join
from mlmetric.metrics._checks import TensorLike, check_choice, to_tensor
from mlmetric.metrics._retrieval import _scores as scores
from mlmetric.metrics._retrieval._search import Metric, Score, Search
from mlmetric.metrics._zero_division import check_zero_division, mean_of_defined
from mlmetric.similarity import SimilarityFunction, jaccard

Distance = Literal["euclidean", "cosine"]
AT_K: dict[str, Callable[..., Tensor]] = {
    "ndcg": partial(scores.ndcg, gain="linear"),
    "acg": scores.average_grade,
    "size_ratio": scores.size_ratio,
    "precision": scores.precision,
    "recall": scores.recall,
    "hit_rate": scores.hit_rate,
    "wmap": scores.weighted_average_precision,
    "map": partial(scores.average_precision, denominator="min"),
}


class RetrievalMetrics(Accumulator):
    """Measure what embeddings retrieve by every metric of retrieval at once, with one search for all.

    Feed it queries with `update` and, where the database is another, its rows with `update_refs`; without these the
    queries are the database, and none retrieves itself. `compute` gives what the functions of `mlmetric.metrics` give
    on all rows together. Where several processes are joined (torch.distributed), it measures the rows of all of them,
    in the order of ranks, and each process must call it.

    | key | what it is |
    | --- | --- |
    | `ndcg_at_10`, `acg_at_10`, `wmap_at_10` | by the grades of the first k; gain is linear |
    | `precision_at_10`, `recall_at_10`, `hit_rate_at_10`, `map_at_10` | by what is relevant among the first k |
    | `size_ratio_at_10` | labels of what is retrieved by labels of the database: near 1, or the others mislead |
    | `map`, `map_at_r`, `r_precision`, `mrr` | by what is relevant, in the order of the whole database |
    | `queries_left_out` | how many queries have nothing relevant in the database: they are in no mean |

    Where torchmetrics is installed an instance is a `torchmetrics.Metric` too, and goes into a `MetricCollection`.

    Args:
        k: How many of the first are looked at: a number or several.
        whole_order: Whether to measure `map`, `map_at_r`, `r_precision` and `mrr` too. They put the whole database in
            order for each query; without them only the first few are searched for, which is several times faster.
        similarity: Grade of a row for a query: any callable `(labels, ref_labels) -> (N, M)`, >= 0.
        relevance_threshold: A row is relevant at this grade or above, up to rounding; None: at any grade above 0.
        metric: `"euclidean"` or `"cosine"`.
        zero_division: What an undefined query gets: nan (left out of means), 0 or 1.
        device: Where the rows are kept; by default where they come from.
        sync_on_compute: Whether the rows of all processes are measured, where several are joined; then each of them
            must ask for the result.

    Raises:
        ValueError: If a `k` is below 1, or `metric` or `zero_division` is none of these.

    Examples:
        >>> metrics = RetrievalMetrics(k=2)
        >>> metrics.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> metrics.update(torch.tensor([[3.0], [7.0]]), torch.tensor([[1, 0, 0], [1, 1, 0]]))
        >>> values = metrics.compute()
        >>> f"{values['ndcg_at_2']:.3f} {values['map']:.3f} {values['queries_left_out']:.0f}"
        '0.336 0.667 1'
    """

    def __init__(
        self,
        *,
        k: int | Sequence[int] = 10,
        whole_order: bool = True,
        similarity: SimilarityFunction = jaccard,
        relevance_threshold: float | None = None,
        metric: Distance = "euclidean",
        zero_division: float = math.nan,
        device: torch.device | str | None = None,
        sync_on_compute: bool = True,
    ) -> None:
        check_choice(metric, "metric", Distance)
        check_zero_division(zero_division)
        super().__init__(sync_on_compute=sync_on_compute)
        self.k = tuple(map(operator.index, k if isinstance(k, Sequence) else [k]))
        if not self.k or min(self.k) < 1:
            raise ValueError(f"`k` must be numbers of at least 1, got {k}.")
        self.whole_order = whole_order
        self.similarity = similarity
        self.relevance_threshold = relevance_threshold
        self.metric: Metric = metric
        self.zero_division = zero_division
        self.rows_device = device

    def update(self, embeddings: TensorLike, labels: TensorLike) -> None:
        """Take in a batch of queries.

        Args:
            embeddings: Shape `(N, D)`, any real dtype.
            labels: Shape `(N, L)`, in [0, 1].

        Raises:
            TypeError: If an argument does not hold real numbers.
            ValueError: If a shape does not fit, or columns or a dtype are not those of earlier batches.
        """
        self._take_in("query", embeddings, labels)

    def update_refs(self, embeddings: TensorLike, labels: TensorLike) -> None:
        """Take in a batch of the database; arguments and errors are those of `update`."""
        self._take_in("ref", embeddings, labels)

    def _take_in(self, side: str, embeddings: TensorLike, labels: TensorLike) -> None:
        rows, matrix = to_tensor(embeddings, "embeddings"), to_tensor(labels, "labels")
        if rows.ndim != 2 or matrix.ndim != 2 or len(rows) != len(matrix):
            raise ValueError(
                f"`embeddings` and `labels` must have shapes (N, D) and (N, L), "
                f"got {tuple(rows.shape)} and {tuple(matrix.shape)}."
            )
        # Of its own: a loop may write the next batch into the same tensors.
        device = self.rows_device or rows.device
        batch = (side, rows.to(device, copy=True), matrix.to(device, copy=True))
        self._check_fits(batch)
        self._batches.append(batch)

    def compute(self) -> dict[str, Tensor]:
        """Measure all queries so far, of all processes.

        Returns:
            The keys above, each a float64 0-d tensor on the device of the rows.

        Raises:
            ValueError: If there is no query yet, a `k` is larger than the database, or for what the functions raise it.
        """
        return self._measure(synced=self.sync_on_compute)

    def _lasting(self) -> list[tuple[str, Tensor, Tensor]]:
        return [batch for batch in self._batches if batch[0] == "ref"]

    def _measure(self, *, synced: bool) -> dict[str, Tensor]:
        queries, refs = self._rows("query", synced=synced), self._rows("ref", synced=synced)
        if not queries:
            raise ValueError("`RetrievalMetrics` holds no queries yet: call `update` first.")
        search = Search.check(queries[0], queries[1], refs[0] if refs else None, refs[1] if refs else None, self.metric)
        table: dict[str, Score] = {
            f"{name}_at_{search.check_k(k)}": partial(score, k=k) for k in self.k for name, score in AT_K.items()
        }
        depth = max(self.k)
        if self.whole_order:
            depth = search.ranker.depth
            table["map"] = partial(scores.average_precision, k=depth, denominator="relevant")
            table["map_at_r"] = scores.average_precision_at_r
            table["r_precision"] = scores.r_precision
            table["mrr"] = partial(scores.reciprocal_rank, k=depth)
        table["queries_left_out"] = scores.nothing_relevant
        values = search.judge(list(table.values()), self.similarity, self.relevance_threshold, depth)
        results = {name: mean_of_defined(value, self.zero_division) for name, value in zip(table, values, strict=True)}
        results["queries_left_out"] = values[-1].sum()
        return results

    def _rows(self, side: str, *, synced: bool) -> Batch:
        """Join the batches of a side; where processes are joined, those of all. Nothing where there is none."""
        batches: list[Batch] = [batch[1:] for batch in self._batches if batch[0] == side]
        return join(batches, synced=synced, device=self.rows_device) or ()

    def _names(self) -> tuple[str, ...]:
        return ("embeddings", "labels")

    def _parts(self, batch: tuple[str, Tensor, Tensor]) -> Batch:
        return batch[1:]
