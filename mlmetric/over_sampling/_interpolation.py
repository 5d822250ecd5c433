"""Interpolation between pairs of rows, dense or sparse, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlmetric.under_sampling._type_conversion import RowIndices

_CHUNK_ENTRIES, _CHUNK_SPARSE_ROWS = 2**22, 2**14


def interpolate(
    X: Any, starts: RowIndices, ends: RowIndices, random_state: np.random.RandomState
) -> tuple[Any, npt.NDArray[np.float64]]:
    """Make a row between the two rows of each pair: for each feature, a random point between the two values.

    A random number in [0, 1) is drawn for each feature in which the two rows differ, in order of pair and feature, so
    that dense and sparse matrices give the same rows.

    Args:
        X: Shape `(N, d)`: an array or a scipy CSR matrix of numbers.
        starts: Index of the first row of each pair, shape `(n,)`.
        ends: Index of the second row of each pair, shape `(n,)`.
        random_state: Source of the random numbers.

    Returns:
        The rows, float64 of shape `(n, d)`, an array or a CSR matrix, and their positions, shape `(n,)`: the distance
        to the first row divided by the sum of the distances to both rows; 0.5 if the two rows are equal.
    """
    step = _CHUNK_SPARSE_ROWS if sparse.issparse(X) else max(1, _CHUNK_ENTRIES // X.shape[1])
    rows, positions = [], []
    for first in range(0, len(starts), step):
        some = slice(first, first + step)
        begin, difference = _float64(X, starts[some]), _float64(X, ends[some])
        difference -= begin
        if sparse.issparse(X):
            difference.eliminate_zeros()
            difference.sort_indices()
            moved = difference.copy()
            moved.data *= random_state.random_sample(moved.nnz)
        else:
            moved, differs = difference.copy(), difference != 0
            moved[differs] *= random_state.random_sample(np.count_nonzero(differs))
        to_start, to_end = _lengths(moved), _lengths(difference - moved)
        both = to_start + to_end
        positions.append(np.divide(to_start, both, out=np.full(len(both), 0.5), where=both > 0))
        rows.append(begin + moved)
    if not rows:
        return _float64(X, starts), np.empty(0)
    stacked = sparse.vstack(rows, format="csr") if sparse.issparse(X) else np.concatenate(rows)
    return stacked, np.concatenate(positions)


def _float64(X: Any, rows: RowIndices) -> Any:
    return X[rows].astype(np.float64)


def _lengths(rows: Any) -> npt.NDArray[np.float64]:
    squares = rows.multiply(rows).sum(axis=1) if sparse.issparse(rows) else np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(np.asarray(squares, dtype=np.float64).ravel())
