"""All retrieval metrics at once, of embeddings that are passed in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.metrics._bootstrap import bootstrap_intervals
from mlmetric.metrics._inputs import TensorLike, check_choice, to_tensor
from mlmetric.metrics._metrics_report import MetricsReport
from mlmetric.metrics._retrieval import _query_scores as scores
from mlmetric.metrics._retrieval._evaluation import Score, score_queries
from mlmetric.metrics._retrieval._retrieval_inputs import Metric, check_k, check_retrieval_inputs
from mlmetric.metrics._stateful_metric import StatefulMetric, Tensors, concatenate_batches
from mlmetric.metrics._zero_division import check_zero_division, mean_of_defined
from mlmetric.similarity import SimilarityFunction, check_similarity, jaccard

EmbeddingMetric = Literal["euclidean", "cosine"]
ScoreAtK = Callable[[scores.RetrievalResults, int], Tensor]
AT_K: dict[str, ScoreAtK] = {
    "ndcg": partial(scores.ndcg, gain="linear"),
    "acg": scores.mean_grade,
    "size_ratio": scores.size_ratio,
    "precision": scores.precision,
    "recall": scores.recall,
    "hit_rate": scores.hit_rate,
    "wmap": scores.weighted_average_precision,
    "map": partial(scores.average_precision, denominator="min"),
}
FULL_RANKING: dict[str, ScoreAtK] = {
    "map": partial(scores.average_precision, denominator="relevant"),
    "map_at_r": scores.average_precision_at_r,
    "r_precision": scores.r_precision,
    "mrr": scores.reciprocal_rank,
}
COUNT = "queries_without_relevant"


class RetrievalMetrics(StatefulMetric):
    """All retrieval metrics of embeddings, computed from one search of the database.

    `update` adds queries, and `update_ref` adds rows of the database; without `update_ref` the queries are the
    database, and each query is excluded from its own results. `compute` returns the values that the functions of
    `mlmetric.metrics` return for all rows together. In a distributed run (torch.distributed), the rows of all processes
    are evaluated, in order of rank, and each process must call `compute` and `report`.

    | key | description |
    | --- | --- |
    | `ndcg_at_10`, `acg_at_10`, `wmap_at_10` | of the relevance grades of the first k rows; NDCG with linear gain |
    | `precision_at_10`, `recall_at_10`, `hit_rate_at_10`, `map_at_10` | of the relevant rows among the first k |
    | `size_ratio_at_10` | labels of the retrieved rows / labels of the database: near 1 without hubs |
    | `map`, `map_at_r`, `r_precision`, `mrr` | of the relevant rows in the ranking of the whole database |
    | `queries_without_relevant` | number of queries without a relevant row in the database, which are undefined |

    If torchmetrics is installed, an instance is also a `torchmetrics.Metric` and can be part of a `MetricCollection`.

    Args:
        k: Number of retrieved rows that are evaluated, at least 1: one number or several. A k larger than the database
            is clipped to its size; the keys keep the k given here.
        full_ranking: Whether to compute `map`, `map_at_r`, `r_precision` and `mrr`, which rank the whole database for
            each query. Without them, only the first k rows are searched for, which is several times faster.
        similarity: Relevance grade of each row for each query: a callable `(labels, ref_labels) -> (N, M)`. Grades must
            be >= 0. None for [`jaccard`][mlmetric.similarity.jaccard].
        relevance_threshold: Lowest grade of a relevant row, compared by [`reaches`][mlmetric.similarity.reaches].
            None, the default: any grade above 0.
        metric: How the database is ranked. `"euclidean"`: by Euclidean distance. `"cosine"`: by cosine distance.
        zero_division: Value of an undefined query: nan, the default, excludes it from the means; 0.0 or 1.0 counts it
            with this value.
        device: Device on which the rows are stored. By default, the device of each batch.
        sync_on_compute: Whether `compute` and `report` evaluate the rows of all processes in a distributed run.

    Raises:
        TypeError: If a `k` is not an integer.
        ValueError: If a `k` is below 1, or `metric` or `zero_division` is none of the values above.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import RetrievalMetrics
        >>> metrics = RetrievalMetrics(k=2)
        >>> metrics.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> metrics.update(torch.tensor([[3.0], [7.0]]), torch.tensor([[1, 0, 0], [1, 1, 0]]))
        >>> values = metrics.compute()
        >>> f"{values['ndcg_at_2']:.3f} {values['map']:.3f} {values['queries_without_relevant']:.0f}"
        '0.336 0.667 1'
    """

    def __init__(
        self,
        *,
        k: int | Sequence[int] = 10,
        full_ranking: bool = True,
        similarity: SimilarityFunction | None = None,
        relevance_threshold: float | None = None,
        metric: EmbeddingMetric = "euclidean",
        zero_division: float = math.nan,
        device: torch.device | str | None = None,
        sync_on_compute: bool = True,
    ) -> None:
        check_choice(metric, "metric", EmbeddingMetric)
        check_zero_division(zero_division)
        super().__init__(sync_on_compute=sync_on_compute)
        self.k = tuple(check_k(each) for each in (k if isinstance(k, Sequence) else [k]))
        if not self.k:
            raise ValueError("`k` must contain at least one number, got none.")
        self.full_ranking = full_ranking
        self.similarity = jaccard if similarity is None else check_similarity(similarity)
        self.relevance_threshold = relevance_threshold
        self.metric: Metric = metric
        self.zero_division = zero_division
        self.device = device

    def update(self, embeddings: TensorLike, labels: LabelsLike) -> None:
        """Add a batch of queries.

        Args:
            embeddings: Embeddings of the queries, shape `(N, D)`, any real dtype.
            labels: Labels of the queries, shape `(N, L)`, multi-hot in {0, 1}, or soft in [0, 1] if `similarity`
                supports soft labels: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If shapes do not match, a label lies outside [0, 1], or the number of columns or the dtype
                differs from earlier batches.
        """
        self._add("query", embeddings, labels, "embeddings", "labels")

    def update_ref(self, ref_emb: TensorLike, ref_labels: LabelsLike) -> None:
        """Add a batch of rows to the database.

        Args:
            ref_emb: Embeddings of the database, shape `(M, D)`, any real dtype.
            ref_labels: Labels of the database, shape `(M, L)`, of any kind that `update` supports.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If shapes do not match, a label lies outside [0, 1], or the number of columns or the dtype
                differs from earlier batches.
        """
        self._add("ref", ref_emb, ref_labels, "ref_emb", "ref_labels")

    def _add(self, side: str, embeddings: TensorLike, labels: LabelsLike, name: str, labels_name: str) -> None:
        rows = to_tensor(embeddings, name)
        matrix = to_tensor(label_tensor(labels, name=labels_name), labels_name)
        if rows.ndim != 2 or len(rows) != len(matrix):
            raise ValueError(
                f"`{name}` and `{labels_name}` must have shapes (N, D) and (N, L), "
                f"got {tuple(rows.shape)} and {tuple(matrix.shape)}."
            )
        # Copies, because the caller may write the next batch to the same tensors.
        device = self.device or rows.device
        batch = (side, rows.to(device, copy=True), matrix.to(device, copy=True))
        self._check_consistent(batch)
        self._batches.append(batch)

    def compute(self) -> dict[str, Tensor]:
        """Compute all metrics of all queries so far, of all processes.

        Returns:
            The keys above, each a float64 0-d tensor on the device of the rows.

        Raises:
            ValueError: If there is no query, the database is empty, an embedding is not finite (or zero with
                `metric="cosine"`), or a grade is negative or NaN.
        """
        return self._compute(synced=self.sync_on_compute)

    def report(
        self,
        *,
        confidence_level: float | None = 0.95,
        n_resamples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> MetricsReport:
        """Compute all metrics of all queries so far, of all processes, with confidence intervals.

        The intervals are those of `confidence_interval`: queries are resampled, and the database stays fixed.

        Args:
            confidence_level: Nominal coverage of the bootstrap intervals, above 0 and below 1; None for no intervals.
            n_resamples: Number of resamples of the bootstrap, at least 1.
            generator: CPU generator of the resamples; by default torch's global one, which `torch.manual_seed` seeds.
                In a distributed run all processes then use the same resamples.

        Returns:
            The values and their intervals, and the number of queries in each mean. `str` of it is a Markdown table.

        Raises:
            ValueError: If `confidence_level` or `n_resamples` is out of range, there is no query, the database is
                empty, an embedding is not finite (or zero with `metric="cosine"`), or a grade is negative or NaN.
        """
        query_values = self._query_values(synced=self.sync_on_compute)
        num_undefined = query_values.pop(COUNT)
        values = {key: mean_of_defined(each, self.zero_division) for key, each in query_values.items()}
        intervals = None
        if confidence_level is not None:

            def resample(weights: Tensor) -> dict[str, Tensor]:
                return {
                    key: mean_of_defined(each, self.zero_division, weight=weights.to(each.device))
                    for key, each in query_values.items()
                }

            intervals = bootstrap_intervals(
                values,
                resample,
                len(num_undefined),
                confidence_level=confidence_level,
                n_resamples=n_resamples,
                generator=generator,
                synced=self.sync_on_compute,
            )
        num_averaged = {
            key: (int((~each.isnan()).sum()) if math.isnan(self.zero_division) else len(each), len(each))
            for key, each in query_values.items()
        }
        return MetricsReport(
            values={key: float(value) for key, value in values.items()},
            num_averaged=num_averaged,
            intervals=intervals,
            confidence_level=confidence_level,
            per_label={},
        )

    def _reference_batches(self) -> list[tuple[str, Tensor, Tensor]]:
        return [batch for batch in self._batches if batch[0] == "ref"]

    def _compute(self, *, synced: bool) -> dict[str, Tensor]:
        query_values = self._query_values(synced=synced)
        count = query_values.pop(COUNT).sum()
        return {key: mean_of_defined(each, self.zero_division) for key, each in query_values.items()} | {COUNT: count}

    def _query_values(self, *, synced: bool) -> dict[str, Tensor]:
        """Compute each metric for each query: float64 `(N,)` each, NaN where undefined."""
        queries, refs = self._rows("query", synced=synced), self._rows("ref", synced=synced)
        if not queries:
            raise ValueError("`RetrievalMetrics` has no queries yet: call `update` first.")
        ref_emb, ref_labels = refs or (None, None)
        inputs = check_retrieval_inputs(queries[0], queries[1], ref_emb, ref_labels, self.metric)
        functions: dict[str, Score] = {
            f"{name}_at_{k}": _at(inputs.clip_k(k), score) for k in self.k for name, score in AT_K.items()
        }
        depth = inputs.clip_k(max(self.k))
        if self.full_ranking:
            depth = inputs.clip_k(None)
            functions |= {name: _at(depth, score) for name, score in FULL_RANKING.items()}
        functions[COUNT] = scores.has_no_relevant
        values = score_queries(inputs, list(functions.values()), self.similarity, self.relevance_threshold, depth)
        return dict(zip(functions, values, strict=True))

    def _rows(self, side: str, *, synced: bool) -> Tensors:
        """Concatenate the batches of queries or of the database, of all processes if `synced`; () if there is none."""
        batches: list[Tensors] = [batch[1:] for batch in self._batches if batch[0] == side]
        return concatenate_batches(batches, synced=synced, device=self.device) or ()

    def _named_tensors(self, batch: tuple[str, Tensor, Tensor]) -> dict[str, Tensor]:
        return {"embeddings": batch[1], "labels": batch[2]}


def _at(k: int, score: ScoreAtK) -> Score:
    return lambda results: score(results, k)
