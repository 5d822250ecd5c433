"""The search index: rows with ids and labels, exact search, files, and conversion to faiss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt

from mlmetric.neighbors import kneighbors
from mlmetric.search._faiss import Metric, make_faiss_index, read_faiss_index
from mlmetric.search._hits import Hit, check_found, make_hits
from mlmetric.search._index_files import StoredIndex, read_index, write_index
from mlmetric.search._rows import (
    LabelSets,
    choose_label_names,
    embedding_matrix,
    id_list,
    is_embedding_matrix,
    join,
    label_matrix,
    predict_and_embed,
)

Array = npt.NDArray[Any]


class SearchIndex:
    """Store embeddings with ids and labels, and find the exact nearest neighbours of queries.

    Rows are stored as float32. With `metric="cosine"` they are stored scaled to unit length. Each search compares the
    query with all rows by [`kneighbors`][mlmetric.neighbors.kneighbors], in bounded memory; for approximate search
    among many rows see `to_faiss`. An index has labels for all of its rows or for none.

    Args:
        label_names: L names, in the order of the columns of label matrices. None uses the names of `model`, if it has
            any, and the column numbers otherwise.
        metric: `"euclidean"`, or `"cosine"` for 1 - cosine of the angle.
        model: Model that computes embeddings of images, so that images can be added and searched for: an object with
            `embed(images) -> (n, D)` and `predict(images)`, which returns a collection of label names for each image,
            and optionally `predict_and_embed(images)`, which returns both. A model on features, without a backbone, is
            rejected, because features cannot be told from embeddings: pass `model.embed(features)` as rows.

    Raises:
        TypeError: If `label_names` is not a list of strings, or `model` lacks a method.
        ValueError: If `metric` is unknown, a name is repeated, or `model` has no backbone or other label names.

    Examples:
        >>> from mlmetric.search import SearchIndex
        >>> index = SearchIndex(label_names=["cat", "dog", "indoors"])
        >>> index.add(
        ...     [[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]],
        ...     ids=["a.jpg", "b.jpg", "c.jpg"],
        ...     labels=[["cat"], ["cat", "indoors"], ["dog"]],
        ... )
        >>> for hit in index.search([[0.9, 0.0]], k=2, labels=[["cat", "indoors"]])[0]:
        ...     print(hit.id, f"{hit.distance:.1f}", hit.labels, hit.shared)
        b.jpg 0.1 ('cat', 'indoors') {'cat': 0.5, 'indoors': 0.5}
        a.jpg 0.9 ('cat',) {'cat': 0.5}
    """

    def __init__(
        self, *, label_names: Iterable[str] | None = None, metric: Metric = "euclidean", model: Any = None
    ) -> None:
        if metric not in get_args(Metric):
            raise ValueError(f"`metric` must be 'euclidean' or 'cosine', got {metric!r}.")
        self.label_names: list[str] | None = choose_label_names(label_names, model)
        self.metric: Metric = metric
        self.model = model
        self._embeddings: list[Array] = []
        self._labels: list[Array] = []
        self._ids: list[str | int] = []
        self._known_ids: set[str | int] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        size = f"{len(self)} rows of {self.embeddings.shape[1]}" if len(self) else "empty"
        labels = f", {self.labels.shape[1]} labels" if self.labels is not None else ""
        return f'SearchIndex({size}, metric="{self.metric}"{labels})'

    @property
    def ids(self) -> list[str | int]:
        """The id of each row."""
        return self._ids.copy()

    @property
    def embeddings(self) -> npt.NDArray[np.float32]:
        """The embedding of each row, shape `(N, D)`, read-only; with `metric="cosine"` of unit length."""
        self._check_not_empty()
        return join(self._embeddings)

    @property
    def labels(self) -> Array | None:
        """The labels of each row, shape `(N, L)`, read-only: uint8, or float32 if any is soft; None without labels."""
        return join(self._labels) if self._labels else None

    def add(self, rows: Any, *, ids: Iterable[str | int] | None = None, labels: LabelSets | None = None) -> None:
        """Add rows; if an argument is invalid, no row is added.

        An index that was loaded as a memory map is then copied to memory at its next use.

        Args:
            rows: Embeddings, shape `(n, D)`: an array, a tensor, a list of rows or a data frame. Or, with a model, one
                or many images of any kind that its `embed` accepts.
            ids: A string or an integer for each row, different from all others in the index. By default the row
                numbers.
            labels: Labels of the rows, preferably the true ones: a label matrix `(n, L)`, multi-hot or soft, of any
                kind that [`check_labels`][mlmetric.labels.check_labels] reads, or a list of the names of each row. None
                adds rows without labels, even with a model: to store the predictions of the model, pass
                `model.predict(images)`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the number of columns differs from earlier rows or from `label_names`, the number of ids or
                labels differs from the number of rows, an id is repeated, a name is not one of `label_names`, an
                embedding is not finite in float32 (or zero with `metric="cosine"`), or some rows have labels and others
                none.
        """
        new_ids = None if ids is None else id_list(ids, self._known_ids)  # before images take time
        embeddings = self._embed(list(rows) if isinstance(rows, Iterator) else rows, "rows")
        start, num_rows = len(self), len(embeddings)
        new_ids = id_list(range(start, start + num_rows), self._known_ids) if new_ids is None else new_ids
        if not num_rows or len(new_ids) != num_rows:
            raise ValueError(f"`rows` and `ids` must have the same length above 0, got {num_rows} and {len(new_ids)}.")
        if start and (labels is None) != (not self._labels):
            has, got = ("none", "some") if labels is not None else ("labels", "none")
            raise ValueError(f"`labels` must be given for all rows or for none: earlier rows have {has}, got {got}.")
        matrix = None if labels is None else self._label_matrix(labels, num_rows, "rows")
        self._store(embeddings, matrix, new_ids)

    def search(self, queries: Any, k: int = 5, *, labels: LabelSets | None = None) -> list[list[Hit]]:
        """Find the k nearest rows of each query, and the labels that they share with it.

        A query that is a row of the index finds itself, at distance 0, after equal rows that were added before.

        Args:
            queries: Embeddings, shape `(Q, D)`, or, with a model, one or many images.
            k: Number of rows for each query, from 1 to the size of the index. A larger k raises an error, as in
                scikit-learn's `NearestNeighbors`.
            labels: Labels of the queries, of any kind that `add` accepts. None uses the labels that the model predicts,
                if the queries are images; embeddings then have no labels, and `shared` is empty.

        Returns:
            For each query a list of k hits, nearest first; hits at the same distance are in row order.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: For the same reasons as in `kneighbors`, or if `labels` do not match the queries or the index.
        """
        if labels is None and self._labels and self.model is not None and not is_embedding_matrix(queries):
            labels, queries = predict_and_embed(self.model, queries)
        distances, indices = self.kneighbors(queries, k)
        return self.hits(distances, indices, labels=labels)

    def kneighbors(self, queries: Any, k: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Find the k nearest rows of each query, as arrays.

        The retrieval metrics accept the row numbers with `metric="retrieved"`.

        Args:
            queries: Embeddings, shape `(Q, D)`, or, with a model, one or many images.
            k: Number of rows for each query, from 1 to the size of the index.

        Returns:
            Distances and row numbers, both of shape `(Q, k)`, nearest first; rows at the same distance are in row
            order.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the index is empty, `k` is out of range, the number of columns differs from the index, or a
                query is not finite in float32 (or zero with `metric="cosine"`).
        """
        refs, vectors = self.embeddings, self._embed(queries, "queries")
        found = kneighbors(refs, k, queries=vectors if len(vectors) else refs[:1])
        distances, indices = (array[: len(vectors)] for array in found)
        return distances**2 / 2 if self.metric == "cosine" else distances, indices

    def hits(self, distances: Any, indices: Any, *, labels: LabelSets | None = None) -> list[list[Hit]]:
        """Describe rows that were found by `kneighbors` or by an approximate index.

        Args:
            distances: Shape `(Q, k)`, copied to the result.
            indices: Row numbers, shape `(Q, k)`; -1, where nothing was found, is skipped.
            labels: Labels of the queries, of any kind that `add` accepts; without them `shared` is empty.

        Returns:
            For each query a list of at most k hits, in the order of `indices`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the index is empty, the shapes differ, an entry of `indices` is not a row number, or `labels`
                do not match the queries or the index.
        """
        self._check_not_empty()
        values, rows = check_found(distances, indices, len(self))
        ref_labels, query_labels = self.labels, None
        if labels is not None:
            if ref_labels is None:
                raise ValueError("`labels` must be None, because the rows of this index have no labels.")
            query_labels = self._label_matrix(labels, len(rows), "queries")
        return make_hits(values, rows, self._ids, ref_labels, query_labels, self.label_names)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the index to a folder: `embeddings.npy`, `labels.npy` if it has labels, and `index.json`.

        Each file is written under a temporary name and renamed when all are complete. The model is not saved.

        Args:
            folder: The folder; it is created if it does not exist.

        Raises:
            OSError: If a file cannot be written; existing files are then unchanged.
            ValueError: If the index is empty.
        """
        stored = StoredIndex(self.embeddings, self.labels, self._ids, self.label_names, self.metric)
        write_index(Path(folder), stored)

    @classmethod
    def load(cls, folder: str | PathLike[str], *, mmap: bool = True, model: Any = None) -> Self:
        """Read an index that `save` wrote, without running code from the files.

        Each file is read once, in blocks, to compare its content with its digest.

        Args:
            folder: The folder.
            mmap: Whether to memory-map the arrays, so that each search reads them from disk, instead of reading them
                into memory now. Do not modify the files while the index is in use; `save` writes new files in their
                place.
            model: As in the constructor. It must be the model that computed the embeddings, which is not checked.

        Raises:
            FileNotFoundError: If the folder or one of its files is missing.
            ValueError: If a file is incomplete or damaged, belongs to another index, was written by a newer version of
                mlmetric, or is not a file of an index, or if the labels of `model` differ from the labels of the index.
            TypeError: If `model` lacks a method.
        """
        stored = read_index(Path(folder), mmap=mmap)
        index = cls(label_names=stored.label_names, metric=stored.metric, model=model)
        num_labels = None if stored.labels is None else stored.labels.shape[1]
        if index.label_names is not None and num_labels not in (None, len(index.label_names)):
            raise ValueError(f"`model` must have {num_labels} labels like the index, got {len(index.label_names)}.")
        index._store(stored.embeddings, stored.labels, stored.ids)
        return index

    def to_faiss(self, factory: str = "Flat") -> Any:
        """Make a faiss index of the same rows, which returns row numbers: the id of row i is `ids[i]`.

        With `metric="cosine"` its metric is the inner product, which ranks the rows like the cosine for queries of any
        length; otherwise it is the squared Euclidean distance. Queries must be float32 arrays.

        Args:
            factory: Description of the index for `faiss.index_factory`: `"Flat"` searches exactly, `"HNSW32"` and
                `"IVF256,Flat"` approximately. Kinds that require training are trained on the rows of the index.

        Returns:
            The faiss index, which contains a copy of the rows.

        Raises:
            ImportError: If faiss is not installed.
            ValueError: If the index is empty, or faiss does not support `factory` or requires more rows for it.
        """
        return make_faiss_index(self.embeddings, self.metric, factory)

    @classmethod
    def from_faiss(
        cls,
        index: Any,
        *,
        ids: Iterable[str | int] | None = None,
        labels: LabelSets | None = None,
        label_names: Iterable[str] | None = None,
        metric: Metric | None = None,
        model: Any = None,
    ) -> Self:
        """Make an index of the vectors that a faiss index contains.

        If the faiss index compresses its vectors, the rows are approximations of the original vectors.

        Args:
            index: The faiss index, with rows numbered from 0, or an `IndexIDMap` of one.
            ids: As in `add`. None uses the ids of an `IndexIDMap`, and the row numbers otherwise.
            labels: As in `add`.
            label_names: As in the constructor.
            metric: As in the constructor. None uses the metric of the faiss index: `"euclidean"` for L2, and `"cosine"`
                for the inner product if the vectors have unit length.
            model: As in the constructor.

        Raises:
            ImportError: If faiss is not installed.
            TypeError: If `index` is not a faiss index, or another argument has the wrong type.
            ValueError: If the faiss index is empty, does not store its vectors, has other row numbers, or has another
                metric and `metric` is None; or for the same reasons as in the constructor and `add`.
        """
        vectors, faiss_metric, faiss_ids = read_faiss_index(index, metric)
        result = cls(label_names=label_names, metric=faiss_metric, model=model)
        result.add(vectors, ids=faiss_ids if ids is None else ids, labels=labels)
        return result

    def _store(self, embeddings: Array, labels: Array | None, ids: list[str | int]) -> None:
        self._embeddings.append(embeddings)
        if labels is not None:
            self._labels.append(labels)
        self._ids += ids
        self._known_ids.update(ids)

    def _check_not_empty(self) -> None:
        if not self._embeddings:
            raise ValueError("The index is empty: call `add` first.")

    def _embed(self, rows: Any, name: str) -> npt.NDArray[np.float32]:
        if self.model is not None and not is_embedding_matrix(rows):
            rows = self.model.embed(rows)
        width = self._embeddings[0].shape[1] if self._embeddings else None
        return embedding_matrix(rows, name, width, unit_length=self.metric == "cosine")

    def _label_matrix(self, labels: LabelSets, num_rows: int, rows_name: str) -> Array:
        width = self._labels[0].shape[1] if self._labels else None
        return label_matrix(labels, self.label_names, num_rows, rows_name, width)
