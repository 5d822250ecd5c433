"""A database that is read once: the nearest rows of each query, and the number of rows with each label set."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mlmetric._digest import sha256_hex
from mlmetric.distributed import gather_objects, num_ranks
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.metrics._inputs import TensorLike, to_tensor
from mlmetric.metrics._retrieval._label_set_counts import Array, LabelSetCounts, check_label_block
from mlmetric.metrics._retrieval._ranking import IndexRanking
from mlmetric.metrics._retrieval._retrieval_inputs import Metric, RetrievalInputs, check_columns, check_embeddings
from mlmetric.neighbors._streamed_search import Nearest, StreamedSearch

_VALUES_PER_BLOCK = 2**20
_EXACT_IN_FLOAT32 = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


class DatabaseState(NamedTuple):
    """State of the search after the rows added so far; its parts are never changed."""

    nearest: Nearest
    label_sets: LabelSetCounts
    kept: tuple[tuple[Array, Array], ...]
    """Indices and label keys of some rows, in ascending order, which include the nearest rows of all queries."""

    num_updates: int
    """Number of calls that added the rows."""

    def on_cpu(self) -> DatabaseState:
        """Return the same state with tensors on the CPU."""
        nearest = self.nearest
        return self._replace(nearest=nearest._replace(squares=nearest.squares.cpu(), indices=nearest.indices.cpu()))


class StreamedDatabase:
    """The k nearest rows of each query in a database that is read once, and the number of rows with each label set.

    Args:
        embeddings: Embeddings of the queries, `(N, D)`.
        labels: Labels of the queries, `(N, L)`.
        k: Number of rows that are kept for each query.
        metric: `"euclidean"` or `"cosine"`.
    """

    def __init__(self, embeddings: Tensor, labels: Tensor, k: int, metric: Metric) -> None:
        self._queries, self._labels, self._metric = embeddings, labels, metric
        self._search = StreamedSearch(check_embeddings(embeddings, "embeddings", metric), k)
        self._label_sets = LabelSetCounts(labels.shape[1], labels.dtype)
        self._kept: list[tuple[Array, Array]] = []
        self._num_kept = 0
        self.num_updates = 0

    @property
    def num_rows(self) -> int:
        """Number of rows so far."""
        return self._search.num_refs

    def add(self, ref_emb: TensorLike, ref_labels: LabelsLike) -> None:
        """Add rows block by block; if an error occurs, none of them is added."""
        rows = _sliceable(ref_emb)
        rows = to_tensor(ref_emb, "ref_emb") if rows is None else rows
        labels = _sliceable(ref_labels)
        labels = label_tensor(ref_labels, name="ref_labels", validate_args=False) if labels is None else labels
        if len(rows.shape) != 2 or rows.shape[0] != labels.shape[0]:
            raise ValueError(
                "`ref_emb` and `ref_labels` must have shapes (N, D) and (N, L), "
                f"got {tuple(rows.shape)} and {tuple(labels.shape)}."
            )
        check_columns(self._queries, rows, "embeddings", "ref_emb")
        size = max(_VALUES_PER_BLOCK // rows.shape[1], self._search.block_rows)
        before = self.state()
        try:
            for start in range(0, max(1, rows.shape[0]), size):
                part = slice(start, start + size)
                self._add_block(rows[part], labels[part], start)
        except BaseException:
            self._restore(before)
            raise
        self.num_updates += 1

    def _add_block(self, ref_emb: Any, ref_labels: Any, start: int) -> None:
        labels = check_label_block(ref_labels, "ref_labels", start)
        check_columns(self._labels, labels, "labels", "ref_labels")
        if labels.dtype != self._labels.dtype:
            raise ValueError(
                f"`ref_labels` must be of {self._labels.dtype}, the dtype of the queries' `labels`, got {labels.dtype}."
            )
        rows = to_tensor(ref_emb, "ref_emb").to(self._queries.device)
        rows = rows.to(torch.float32 if rows.dtype in _EXACT_IN_FLOAT32 else torch.float64)
        largest = max(abs(float(end)) for end in torch.aminmax(rows)) if len(rows) else 0.0
        if self._metric == "cosine" or not largest < float("inf"):
            rows, largest = check_embeddings(rows, "ref_emb", self._metric, start), 1.0
        if self._label_sets.needs_soft(labels):
            self._soften()
        keys, first = self._label_sets.encode(labels), self._search.num_refs
        columns = self._search.add(rows, largest).cpu().numpy()
        self._label_sets.add(keys)
        self._kept.append((columns + first, keys[columns]))
        self._num_kept += len(columns)
        if self._num_kept > 4 * self._search.num_results + 2**16:
            self._drop_others()

    def _soften(self) -> None:
        self._kept = [(indices, self._label_sets.soften(keys)) for indices, keys in self._kept]
        self._label_sets = self._label_sets.softened()

    def _drop_others(self) -> None:
        """Drop the rows that are no longer among the nearest of any query."""
        indices, keys = (np.concatenate(side) for side in zip(*self._kept, strict=True))
        is_near = np.isin(indices, self._search.nearest().indices.cpu().numpy())
        self._kept, self._num_kept = [(indices[is_near], keys[is_near])], int(is_near.sum())

    def state(self) -> DatabaseState:
        """Return the state after the rows added so far."""
        return DatabaseState(self._search.nearest(), self._label_sets.copy(), tuple(self._kept), self.num_updates)

    def _restore(self, state: DatabaseState) -> None:
        self._search.restore(state.nearest)
        self._label_sets, self._kept = state.label_sets, [*state.kept]
        self._num_kept = sum(len(indices) for indices, _ in state.kept)

    def merge(self, other: DatabaseState) -> None:
        """Add the rows of a database for the same queries; they follow the rows so far."""
        label_sets, kept, first = other.label_sets, other.kept, self._search.num_refs
        if self._label_sets.is_soft and not label_sets.is_soft:
            kept = tuple((indices, label_sets.soften(keys)) for indices, keys in kept)
            label_sets = label_sets.softened()
        elif label_sets.is_soft and not self._label_sets.is_soft:
            self._soften()
        self._label_sets.add(*label_sets.distinct())
        self._kept += [(indices + first, keys) for indices, keys in kept]
        self._num_kept += sum(len(indices) for indices, _ in kept)
        self.num_updates += other.num_updates
        self._search.restore(self._search.nearest().merged(other.nearest, self._search.k))

    def digest(self) -> str:
        """Return a digest of the queries and the options, which databases that can be merged have in common."""
        parts = [part.cpu().contiguous() for part in (self._queries, self._labels)]
        options = [f"{part.dtype} {tuple(part.shape)} " for part in parts] + [f"{self._search.k} {self._metric}"]
        return sha256_hex([*options, *(part.view(-1).view(torch.uint8).numpy().tobytes() for part in parts)])

    def emptied(self) -> StreamedDatabase:
        """Return a database without rows for the same queries."""
        return StreamedDatabase(self._queries, self._labels, self._search.k, self._metric)

    def inputs(self) -> RetrievalInputs:
        """Return the distinct label sets as a database with counts, and the ranking of their indices."""
        nearest = self._search.nearest().indices
        keys, counts = self._label_sets.distinct()
        sets = nearest
        if nearest.numel():
            indices, kept = (np.concatenate(side) for side in zip(*self._kept, strict=True))
            positions = np.searchsorted(keys, kept[np.searchsorted(indices, nearest.cpu().numpy().ravel())])
            sets = torch.from_numpy(positions).view(nearest.shape).to(nearest.device)
        device = self._labels.device
        return RetrievalInputs(
            labels=self._labels,
            ref_labels=self._label_sets.decode(keys).to(device),
            ranking=IndexRanking(sets, exclude_self=False),
            exclude_self=False,
            counts=torch.from_numpy(counts).to(device),
        )


def gather_database(database: StreamedDatabase | None) -> StreamedDatabase | None:
    """Return the rows of the databases of all processes, in the order of ranks; None if no process has queries."""
    if num_ranks() == 1:
        return database
    digests = gather_objects(None if database is None else database.digest())
    if len({*digests}) > 1:
        raise ValueError(
            "`update` must add the same queries in each process with `streamed=True`, got different ones, or none in "
            "some process. `k` and `metric` must be the same as well."
        )
    if database is None:
        return None
    merged = database.emptied()
    for state in gather_objects(database.state().on_cpu()):
        merged.merge(state)
    return merged


def merge_databases(first: StreamedDatabase | None, second: StreamedDatabase | None) -> StreamedDatabase:
    """Return the rows of both; the rows of the second follow the rows of the first."""
    if first is None or second is None or first.digest() != second.digest():
        raise ValueError(
            "`other` must have the same queries, `k` and `metric`, and both `streamed=True`, got a metric that differs "
            "in one of them. Add the same queries to both with `update`."
        )
    merged = first.emptied()
    merged.merge(first.state())
    merged.merge(second.state())
    return merged


def _sliceable(values: Any) -> Any:
    """Return values whose rows can be taken without a conversion of all of them, or None."""
    if isinstance(values, Tensor):
        return values.detach() if values.layout is torch.strided else None
    if sparse.issparse(values):
        return values.tocsr()
    # Arrays, and matrices in files that are read where they are sliced, such as `JoinedFeatures` and h5py datasets.
    dtype, shape = getattr(values, "dtype", None), getattr(values, "shape", ())
    is_sliceable = isinstance(dtype, np.dtype) and dtype.kind in "biuf" and len(shape) == 2
    return values if is_sliceable else None
