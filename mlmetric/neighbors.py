"""Exact k nearest neighbours in bounded memory, for the samplers."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array

__all__ = ["kneighbors"]

_CDIST_NAMES = {
    "euclidean": "sqeuclidean",  # the root is taken at the end: near 0 it would merge distinct distances
    "manhattan": "cityblock",
    "chebyshev": "chebyshev",
    "cosine": "cosine",
}
_SPARE_CANDIDATES = 16
_BLOCK_BYTES = 2**27


def kneighbors(
    X: Any,
    k: int,
    *,
    queries: Any = None,
    metric: Literal["euclidean", "manhattan", "chebyshev", "cosine"] = "euclidean",
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Find the k nearest rows of each row, exactly.

    The neighbours are those of float64 differences, whatever the offset of the data. Ties go to the
    lowest index. Without `queries` a row is never its own neighbour, and its exact duplicates are neighbours like
    any other.

    Args:
        X: Rows to search, shape `(N, d)`, numbers, dense or scipy sparse; computed in float64.
        k: Number of neighbours, 1 to N - 1, or 1 to N with `queries`.
        queries: Rows to find neighbours for, shape `(Q, d)`, dense or sparse; no row of `X` is excluded then. The
            rows of `X` themselves by default.
        metric: How rows are compared. Euclidean is the fast one; the others compare each query with every row.

    Returns:
        Distances, float64, and row numbers of `X`, both of shape `(Q, k)`, nearest first.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is out of range, `metric` unknown, an entry NaN or infinite, a number too large to be
            squared, the number of columns different, or a row all-zero under `"cosine"`.

    Example:
        >>> distances, indices = kneighbors([[0.0], [1.0], [3.0], [3.0]], k=2)
        >>> indices
        array([[1, 2],
               [0, 2],
               [3, 1],
               [2, 1]])
        >>> distances
        array([[1., 3.],
               [1., 2.],
               [0., 2.],
               [0., 2.]])
    """
    if metric not in _CDIST_NAMES:
        raise ValueError(f"`metric` must be one of {', '.join(map(repr, _CDIST_NAMES))}, got {metric!r}.")
    X = check_array(X, accept_sparse="csr", dtype=np.float64, input_name="X")
    rows = X if queries is None else check_array(queries, accept_sparse="csr", dtype=np.float64, input_name="queries")
    if rows.shape[1] != X.shape[1]:
        raise ValueError(f"`queries` must have the {X.shape[1]} columns of `X`, got {rows.shape[1]}.")
    k = _check_k(k, X.shape[0], excluding=queries is None)
    _check_magnitudes(X, rows, metric)

    distances = np.empty((rows.shape[0], k))
    indices = np.empty((rows.shape[0], k), dtype=np.intp)
    open_rows = np.arange(rows.shape[0])
    if metric == "euclidean":
        is_certain = np.zeros(rows.shape[0], dtype=bool)
        for row, candidates, nearest_outside in _candidates(X, rows, k):
            squares = cdist(_dense(rows[[row]]), _dense(X[candidates]), "sqeuclidean")[0]
            distances[row], order = _select(squares, k, excluded=candidates == row if queries is None else None)
            indices[row] = candidates[order]
            is_certain[row] = distances[row, -1] < nearest_outside
        open_rows = np.flatnonzero(~is_certain)
    for row, compared in _compare_with_all(X, rows, open_rows, metric):
        excluded = np.arange(X.shape[0]) == row if queries is None else None
        distances[row], indices[row] = _select(compared, k, excluded=excluded)
    return (np.sqrt(distances) if metric == "euclidean" else distances), indices


def _check_k(k: int, num_rows: int, *, excluding: bool) -> int:
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"`k` must be an integer, got {k!r}.") from None
    if not 1 <= k <= num_rows - excluding:
        reason = "a row is not its own neighbour" if excluding else "there are no more"
        raise ValueError(f"`k` must be from 1 to {num_rows - excluding} for {num_rows} rows ({reason}), got {k}.")
    return k


def _check_magnitudes(X: Any, rows: Any, metric: str) -> None:
    for name, matrix in (("X", X), ("queries", rows)):
        largest = float(abs(matrix).max())
        if metric in ("euclidean", "cosine") and not largest < 1e150:
            raise ValueError(f"`{name}` must hold numbers below 1e150, whose squares are finite, got {largest}.")
        if metric == "cosine":
            zeros = np.flatnonzero(np.asarray(abs(matrix).sum(axis=1)).ravel() == 0)
            if len(zeros):
                raise ValueError(f"`{name}` must have no all-zero row under the cosine metric, got row {zeros[0]}.")


def _candidates(X: Any, rows: Any, k: int) -> Iterator[tuple[int, npt.NDArray[np.intp], float]]:
    """Yield for each row its likely neighbours, by index, and a square that every other row's distance exceeds.

    scikit-learn may expand the square of a difference, which loses digits in proportion to the squared norms. The
    bound allows for that, for centring, and for the rounding of the re-ranked distances.
    """
    num_candidates = min(X.shape[0], k + 1 + _SPARE_CANDIDATES)
    mean = 0.0 if sparse.issparse(X) else X.mean(axis=0)
    centred = X if sparse.issparse(X) else X - mean
    search = NearestNeighbors(n_neighbors=num_candidates).fit(centred)
    relative_error = (4 * X.shape[1] + 32) * np.finfo(np.float64).eps
    largest_square = _squared_norms(centred).max()
    step = max(1, _BLOCK_BYTES // (8 * max(X.shape)))
    for start in range(0, rows.shape[0], step):
        block = rows[start : start + step] if sparse.issparse(X) else _dense(rows[start : start + step]) - mean
        reach, found = search.kneighbors(block)
        outside = reach[:, -1] ** 2 - relative_error * (_squared_norms(block) + largest_square)
        if num_candidates == X.shape[0]:
            outside[:] = np.inf
        for offset, candidates in enumerate(np.sort(found, axis=1)):
            yield start + offset, candidates, outside[offset]


def _compare_with_all(
    X: Any, rows: Any, open_rows: npt.NDArray[np.intp], metric: str
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    step = max(1, _BLOCK_BYTES // (8 * max(X.shape)))
    width = max(1, _BLOCK_BYTES // (8 * X.shape[1])) if sparse.issparse(X) else X.shape[0]
    for start in range(0, len(open_rows), step):
        chosen = open_rows[start : start + step]
        block = _dense(rows[chosen])
        parts = [
            cdist(block, _dense(X[left : left + width]), _CDIST_NAMES[metric]) for left in range(0, X.shape[0], width)
        ]
        yield from zip(chosen, np.hstack(parts), strict=True)


def _select(
    compared: npt.NDArray[np.float64], k: int, *, excluded: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    if excluded is not None:
        compared = np.where(excluded, np.inf, compared)
    within = np.flatnonzero(compared <= np.partition(compared, k - 1)[k - 1])
    order = within[np.argsort(compared[within], kind="stable")[:k]]
    return compared[order], order


def _dense(matrix: Any) -> npt.NDArray[np.float64]:
    dense: npt.NDArray[np.float64] = matrix.toarray() if sparse.issparse(matrix) else matrix
    return dense


def _squared_norms(matrix: Any) -> npt.NDArray[np.float64]:
    if sparse.issparse(matrix):
        return np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    norms: npt.NDArray[np.float64] = np.einsum("ij,ij->i", matrix, matrix)
    return norms
