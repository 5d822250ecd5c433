"""Conversion of embeddings to a faiss index, and back."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Metric = Literal["euclidean", "cosine"]


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('faiss is not installed: run `pip install "mlmetric[faiss]"`.') from error
    return faiss


def make_faiss_index(embeddings: npt.NDArray[np.float32], metric: Metric, factory: str) -> Any:
    """Make a faiss index of all rows, trained on them if its kind requires training."""
    faiss = _import_faiss()
    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    try:
        index = faiss.index_factory(embeddings.shape[1], factory, kind)
        if not index.is_trained:
            index.train(embeddings)
        index.add(embeddings)
    except RuntimeError as error:
        raise ValueError(
            f"faiss cannot make an index {factory!r} of {len(embeddings)} rows: {str(error).rpartition('Error: ')[2]}"
        ) from error
    return index


def read_faiss_index(index: Any, metric: Metric | None) -> tuple[npt.NDArray[np.float32], Metric, list[int] | None]:
    """Return the vectors of a faiss index in order of row, the metric, and the ids of an `IndexIDMap`."""
    faiss = _import_faiss()
    if not isinstance(index, faiss.Index):
        raise TypeError(f"`index` must be a faiss index, got {type(index).__name__}.")
    index, ids = faiss.downcast_index(index), None
    if isinstance(index, faiss.IndexIDMap):
        ids = faiss.vector_to_array(index.id_map).tolist()
        index = faiss.downcast_index(index.index)
    if not index.ntotal:
        raise ValueError("`index` must contain at least one row, got an empty faiss index.")
    _check_row_numbers(faiss, index)
    vectors: npt.NDArray[np.float32] = index.reconstruct_n(0, index.ntotal)
    if metric is None:
        metric = _metric_of(faiss, index, vectors)
    return vectors, metric, ids


def _check_row_numbers(faiss: Any, index: Any) -> None:
    """Check that rows 0 to n - 1 can be read.

    From an inverted file, faiss otherwise returns arbitrary numbers; reading all rows of another kind of index that
    cannot be read ends the process.
    """
    try:
        lists = faiss.extract_index_ivf(index).invlists
    except RuntimeError:  # not an inverted file
        try:
            index.reconstruct(0)
        except RuntimeError as error:
            raise ValueError(
                f"`index` must be a faiss index of which row 0 can be read, got {type(index).__name__}: "
                f"{str(error).rpartition('Error: ')[2] or error}"
            ) from error
        return
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    if not np.array_equal(np.sort(np.concatenate(parts)), np.arange(index.ntotal)):
        raise ValueError(
            "`index` must contain rows numbered from 0, got a faiss index with other numbers, from `add_with_ids` or "
            "`remove_ids`: reconstruct its vectors by their numbers, and pass them to `SearchIndex.add`."
        )


def _metric_of(faiss: Any, index: Any, vectors: npt.NDArray[np.float32]) -> Metric:
    if index.metric_type == faiss.METRIC_L2:
        return "euclidean"
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"`metric` must be given for a faiss index with metric type {index.metric_type}.")
    norms = np.linalg.norm(vectors, axis=1)
    if np.abs(norms - 1).max() > 1e-3:
        raise ValueError(
            "`metric` must be given for a faiss index with the inner product of rows that do not have unit length, got "
            f'lengths from {norms.min():g} to {norms.max():g}: `metric="cosine"` scales them.'
        )
    return "cosine"
