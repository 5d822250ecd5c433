"""The class that computes all retrieval metrics of embeddings that are passed in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.metrics._inputs import TensorLike, check_choice, to_tensor
from mlmetric.metrics._metrics_report import MetricsReport
from mlmetric.metrics._retrieval._retrieval_inputs import Metric, RetrievalInputs, check_k, check_retrieval_inputs
from mlmetric.metrics._retrieval._score_table import COUNT, report_scores, score_table
from mlmetric.metrics._retrieval._streamed_database import StreamedDatabase, gather_database, merge_databases
from mlmetric.metrics._stateful_metric import StatefulMetric, Tensors, concatenate_batches
from mlmetric.metrics._zero_division import check_zero_division, mean_of_defined
from mlmetric.similarity import SimilarityFunction, check_similarity, jaccard

EmbeddingMetric = Literal["euclidean", "cosine"]
_NO_QUERIES = "`RetrievalMetrics` has no queries yet: call `update` first."


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

    With `streamed=True`, `update_ref` searches the rows of the database at once and does not store them. It keeps the k
    nearest rows of each query and the number of rows with each distinct label set, from which the ideal ranking and the
    numbers of relevant rows follow: the values are the same. Add all queries before the database. The memory needed
    grows with the number of queries and of distinct label sets; nearly all rows of soft labels are distinct, so that
    all labels are then stored. In a distributed run, each process adds the same queries and its own part of the
    database; `merge_state` merges metrics of independent processes in the same way.

    If torchmetrics is installed, an instance is also a `torchmetrics.Metric` and can be part of a `MetricCollection`.

    Args:
        k: Number of retrieved rows that are evaluated, at least 1: one number or several. A k larger than the database
            is clipped to its size; the keys contain the k given here.
        full_ranking: Whether to compute `map`, `map_at_r`, `r_precision` and `mrr`, which rank the whole database for
            each query. Without them, only the first k rows are searched for, which is several times faster. It must be
            False with `streamed=True`.
        similarity: Relevance grade of each row for each query: a callable `(labels, ref_labels) -> (N, M)`. Grades must
            be >= 0. With `streamed=True`, `ref_labels` are the distinct label sets, so a grade must depend only on the
            labels of its query and its row. None uses [`jaccard`][mlmetric.similarity.jaccard].
        relevance_threshold: Lowest grade of a relevant row, compared by [`reaches`][mlmetric.similarity.reaches].
            None, the default: any grade above 0.
        metric: How the database is ranked. `"euclidean"`: by Euclidean distance. `"cosine"`: by cosine distance.
        zero_division: Value of an undefined query: nan, the default, excludes it from the means; 0.0 or 1.0 counts it
            with this value.
        device: Device on which the rows are stored, or searched with `streamed=True`. By default, the device of each
            batch.
        sync_on_compute: Whether `compute` and `report` evaluate the rows of all processes in a distributed run.
        streamed: Whether `update_ref` searches the rows at once instead of keeping them, for a database that does not
            fit in memory.

    Raises:
        TypeError: If a `k` is not an integer.
        ValueError: If a `k` is below 1, `metric` or `zero_division` is none of the values above, or `full_ranking` is
            True with `streamed=True`.

    Examples:
        >>> import torch
        >>> from mlmetric.metrics import RetrievalMetrics
        >>> metrics = RetrievalMetrics(k=2)
        >>> metrics.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> metrics.update(torch.tensor([[3.0], [7.0]]), torch.tensor([[1, 0, 0], [1, 1, 0]]))
        >>> values = metrics.compute()
        >>> f"{values['ndcg_at_2']:.3f} {values['map']:.3f} {values['queries_without_relevant']:.0f}"
        '0.336 0.667 1'
        >>> metrics = RetrievalMetrics(k=2, streamed=True, full_ranking=False)
        >>> metrics.update(torch.tensor([[0.0], [1.0]]), torch.tensor([[1, 1, 0], [0, 0, 1]]))
        >>> for ref_emb, ref_labels in [([[3.0]], [[1, 0, 0]]), ([[7.0], [0.0]], [[1, 1, 0], [0, 0, 1]])]:
        ...     metrics.update_ref(ref_emb, ref_labels)  # such as the files of a database, each read once
        >>> f"{metrics.compute()['ndcg_at_2']:.3f}"
        '0.620'
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
        streamed: bool = False,
    ) -> None:
        check_choice(metric, "metric", EmbeddingMetric)
        check_zero_division(zero_division)
        super().__init__(sync_on_compute=sync_on_compute)
        self.k = tuple(check_k(each) for each in (k if isinstance(k, Sequence) else [k]))
        if not self.k:
            raise ValueError("`k` must contain at least one number, got none.")
        if streamed and full_ranking:
            raise ValueError(
                "`full_ranking` must be False with `streamed=True`, got True: `map`, `map_at_r`, `r_precision` and "
                "`mrr` need the rank of each row for each query: 8 bytes and a sort for each pair of them, such as "
                "80 GB for 1,000 queries and 10 million rows. Pass `full_ranking=False` for the metrics of the first "
                "k, or `streamed=False`, which stores the database and ranks it for a few queries at a time."
            )
        self.full_ranking = full_ranking
        self.similarity = jaccard if similarity is None else check_similarity(similarity)
        self.relevance_threshold = relevance_threshold
        self.metric: Metric = metric
        self.zero_division = zero_division
        self.device = device
        self.streamed = streamed
        self._database: StreamedDatabase | None = None

    def update(self, embeddings: TensorLike, labels: LabelsLike) -> None:
        """Add a batch of queries.

        Args:
            embeddings: Embeddings of the queries, shape `(N, D)`, any real dtype.
            labels: Labels of the queries, shape `(N, L)`, multi-hot in {0, 1}, or soft in [0, 1] if `similarity`
                supports soft labels: a tensor, an array, a list of rows, a scipy sparse matrix or a data frame.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If shapes do not match, a label lies outside [0, 1], the number of columns or the dtype differs
                from earlier batches, or `update_ref` was called before with `streamed=True`.
        """
        if self._database is not None:
            raise ValueError(
                "`update` must add all queries before the first `update_ref` with `streamed=True`, because the rows of "
                "the database are not stored; got more queries. Call `reset` to begin again."
            )
        self._add("query", embeddings, labels, "embeddings", "labels")

    def update_ref(self, ref_emb: TensorLike, ref_labels: LabelsLike) -> None:
        """Add a batch of rows to the database.

        With `streamed=True`, arrays, memory maps, tensors and sparse matrices are converted block by block, and so are
        matrices in files with the attributes `shape` and `dtype` whose slices are arrays, such as
        [JoinedFeatures][mlmetric.data.JoinedFeatures] and h5py datasets. The embeddings may have another dtype than the
        queries, such as float16.

        Args:
            ref_emb: Embeddings of the database, shape `(M, D)`, any real dtype.
            ref_labels: Labels of the database, shape `(M, L)`, of any kind that `update` supports.

        Raises:
            TypeError: If an argument does not contain real numbers.
            ValueError: If shapes do not match, a label lies outside [0, 1], or the number of columns or the dtype
                differs from earlier batches. With `streamed=True` also if `update` was not called before, or an
                embedding is not finite (or zero with `metric="cosine"`); none of the rows is then added.
        """
        if not self.streamed:
            self._add("ref", ref_emb, ref_labels, "ref_emb", "ref_labels")
            return
        database = self._streamed_database()
        if database is None:
            raise ValueError("`update` must add the queries before `update_ref` with `streamed=True`, got none yet.")
        database.add(ref_emb, ref_labels)
        self._database = database  # not before, so that queries can be added after an error

    @property
    def update_count(self) -> int:
        """Number of batches since construction or the last `reset`."""
        return len(self._batches) + (self._database.num_updates if self._database else 0)

    def reset(self) -> None:
        """Remove all batches."""
        super().reset()
        self._database = None

    def merge_state(self, other: Self) -> None:
        """Add all batches of another metric of the same class.

        With `streamed=True` both must have the same queries, which are kept once; the rows of the other database follow
        the rows of this one.

        Args:
            other: The metric whose batches to add; it is not changed.

        Raises:
            TypeError: If the class differs.
            ValueError: If the number of columns or the dtype differs; with `streamed=True`, if the queries, `k`,
                `metric` or `streamed` differ.
        """
        if type(other) is type(self) and self.streamed | other.streamed:
            self._database = merge_databases(self._streamed_database(), other._streamed_database())
        else:
            super().merge_state(other)

    def _add(self, side: str, embeddings: TensorLike, labels: LabelsLike, name: str, labels_name: str) -> None:
        rows = to_tensor(embeddings, name)
        matrix = to_tensor(label_tensor(labels, name=labels_name, used_by="`RetrievalMetrics`"), labels_name)
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
        """Compute all metrics over the queries added so far in all processes.

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
        """Compute all metrics over the queries added so far in all processes, with confidence intervals.

        The intervals are computed as in `confidence_interval`: queries are resampled, and the database stays fixed.

        Args:
            confidence_level: Nominal coverage of the bootstrap intervals, above 0 and below 1; None for no intervals.
            n_resamples: Number of resamples of the bootstrap, at least 1.
            generator: CPU generator of the resamples; by default torch's global one, which `torch.manual_seed` seeds.
                In a distributed run all processes then use the same resamples.

        Returns:
            The values and their intervals, and the number of queries in each mean. `str(report)` is a Markdown table.

        Raises:
            ValueError: If `confidence_level` or `n_resamples` is out of range, there is no query, the database is
                empty, an embedding is not finite (or zero with `metric="cosine"`), or a grade is negative or NaN.
        """
        return report_scores(
            self._query_values(synced=self.sync_on_compute),
            self.zero_division,
            confidence_level=confidence_level,
            n_resamples=n_resamples,
            generator=generator,
            synced=self.sync_on_compute,
        )

    def _reference_batches(self) -> list[tuple[str, Tensor, Tensor]]:
        if self.streamed:
            raise ValueError(
                "`forward` evaluates each batch with the database, which `streamed=True` does not store: call `update` "
                "and `compute`."
            )
        return [batch for batch in self._batches if batch[0] == "ref"]

    def _compute(self, *, synced: bool) -> dict[str, Tensor]:
        query_values = self._query_values(synced=synced)
        count = query_values.pop(COUNT).sum()
        return {key: mean_of_defined(each, self.zero_division) for key, each in query_values.items()} | {COUNT: count}

    def _query_values(self, *, synced: bool) -> dict[str, Tensor]:
        """Compute each metric for each query: float64 `(N,)` each, NaN where undefined."""
        inputs = self._streamed_inputs(synced=synced) if self.streamed else self._inputs(synced=synced)
        options = (self.k, self.similarity, self.relevance_threshold)
        return score_table(inputs, *options, full_ranking=self.full_ranking)

    def _inputs(self, *, synced: bool) -> RetrievalInputs:
        queries, refs = self._rows("query", synced=synced), self._rows("ref", synced=synced)
        if not queries:
            raise ValueError(_NO_QUERIES)
        ref_emb, ref_labels = refs or (None, None)
        return check_retrieval_inputs(queries[0], queries[1], ref_emb, ref_labels, self.metric)

    def _streamed_inputs(self, *, synced: bool) -> RetrievalInputs:
        database = self._streamed_database()
        if synced:
            database = gather_database(database)
        if database is None:
            raise ValueError(_NO_QUERIES)
        if not database.num_rows:
            raise ValueError("`streamed=True` requires a database: call `update_ref` after `update`.")
        return database.inputs()

    def _streamed_database(self) -> StreamedDatabase | None:
        """Return the database so far, an empty one before the first `update_ref`; None without queries."""
        queries = self._rows("query", synced=False)
        if self._database is None and self.streamed and queries:
            embeddings, labels = queries
            return StreamedDatabase(embeddings, labels, max(self.k), self.metric)
        return self._database

    def _rows(self, side: str, *, synced: bool) -> Tensors:
        """Concatenate the batches of queries or of the database, of all processes if `synced`; () if there is none."""
        batches: list[Tensors] = [batch[1:] for batch in self._batches if batch[0] == side]
        return concatenate_batches(batches, synced=synced, device=self.device) or ()

    def _named_tensors(self, batch: tuple[str, Tensor, Tensor]) -> dict[str, Tensor]:
        return {"embeddings": batch[1], "labels": batch[2]}
