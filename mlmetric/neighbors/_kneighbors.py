"""The public search."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import isqrt
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import pairwise_distances_chunked
from sklearn.utils import check_array
from torch import Tensor

from mlmetric.neighbors._rows import Array, DenseRows, Rows, SparseRows
from mlmetric.neighbors._search import search


def kneighbors(
    X: Any,
    k: int,
    *,
    queries: Any = None,
    metric: str | Callable[..., float] = "euclidean",
    working_memory: float = 256,
) -> tuple[Any, Any]:
    """Find the k nearest rows of each row, exactly.

    The neighbours are those of float64 differences, whatever the offset of the data. Ties go to the lowest index.
    Without `queries` a row is never its own neighbour, and its exact duplicates are neighbours like any other. The
    first j columns of the result are the result for j neighbours, so one search serves whoever needs fewer.

    Args:
        X: Rows to search, shape `(N, d)`, real numbers: an array, a tensor on any device, a list, a data frame or a
            scipy sparse matrix. float32 and float64 are not copied; anything else, and float32 beside float64, is
            converted to float64.
        k: Number of neighbours, 1 to N - 1, or 1 to N with `queries`.
        queries: Rows to find neighbours for, shape `(Q, d)`, of any of these kinds; no row of `X` is excluded then. The
            rows of `X` themselves by default, which takes half the time.
        metric: `"euclidean"`; `"cosine"`, 1 - cosine of the angle, by Euclidean distance of the rows scaled to
            length 1 in float64; or any metric of `sklearn.metrics.pairwise_distances`, compared as that compares.
        working_memory: MiB of temporary arrays, about. The result, `(Q, k)`, and copies named above come on top.

    Returns:
        Distances, float64, and row numbers of `X`, both of shape `(Q, k)`, nearest first: tensors on the device of `X`
        where `X` is a tensor, else arrays.

    Raises:
        TypeError: If `k` is not an integer, or only one of a tensor `X` and its `queries` lies on a device.
        ValueError: If `k` is out of range, `metric` unknown, an entry NaN or infinite, a number too large to be
            squared, the number of columns different, a row all-zero under `"cosine"`, or `working_memory` not above 0.

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
    if not working_memory > 0:
        raise ValueError(f"`working_memory` must be above 0 (MiB), got {working_memory}.")
    refs = _read(X, "X")
    rows = refs if queries is None else _read(queries, "queries", like=refs)
    if rows.shape[1] != refs.shape[1]:
        raise ValueError(f"`queries` must have the {refs.shape[1]} columns of `X`, got {rows.shape[1]}.")
    if sparse.issparse(rows) and not sparse.issparse(refs):
        refs = sparse.csr_array(refs)
    if rows.dtype != refs.dtype:
        rows, refs = (side.double() if isinstance(side, Tensor) else side.astype(np.float64) for side in (rows, refs))
    k = _check_k(k, refs.shape[0], excluding=queries is None)
    if metric == "cosine":
        refs = _unit(refs, "X")
        rows = refs if queries is None else _unit(rows, "queries")
    if metric in ("euclidean", "l2", "cosine"):
        searched = _rows(refs)
        block = _block(refs.shape[1], working_memory)
        distances, indices = search(searched if rows is refs else _rows(rows), searched, k, block=block)
        if metric == "cosine":
            distances = distances.square() / 2
        return (distances, indices) if isinstance(refs, Tensor) else (distances.numpy(), indices.numpy())
    if not isinstance(refs, Tensor):
        return _by_sklearn(rows, refs, k, metric, working_memory)
    if refs.device.type != "cpu":
        raise ValueError(f"`metric` must be 'euclidean' or 'cosine' on {refs.device}, got {metric!r}: pass `X.cpu()`.")
    arrays = refs.numpy(), None if rows is refs else rows.numpy()
    found = _by_sklearn(arrays[0] if arrays[1] is None else arrays[1], arrays[0], k, metric, working_memory)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _read(matrix: Any, name: str, *, like: Any = None) -> Any:
    """Return a checked tensor, csr matrix or array: a tensor where `matrix` is one, or `like` is."""
    if isinstance(like, Tensor):
        matrix = torch.as_tensor(matrix, device=like.device)
    if isinstance(matrix, Tensor) and (like is None or isinstance(like, Tensor)):
        matrix = matrix.detach()
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise ValueError(f"`{name}` must have shape (N, d), neither of them 0, got {tuple(matrix.shape)}.")
        if matrix.is_complex() or matrix.dtype == torch.bool:
            raise ValueError(f"`{name}` must hold real numbers, got {matrix.dtype}.")
        matrix = matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.double()
        if not bool(matrix.isfinite().all()):
            row, column = (~matrix.isfinite()).nonzero()[0].tolist()
            value = matrix[row, column].item()
            raise ValueError(f"Input {name} contains NaN or infinity: {value} at row {row}, column {column}.")
        largest = float(matrix.abs().max())
    else:
        matrix = check_array(matrix, accept_sparse="csr", dtype=[np.float64, np.float32], input_name=name)
        if sparse.issparse(like) and not sparse.issparse(matrix):
            matrix = sparse.csr_array(matrix)
        largest = float(max(matrix.max(), -matrix.min()))
    if not largest < 1e150:
        raise ValueError(f"`{name}` must hold numbers below 1e150, whose squares are finite, got {largest}.")
    return matrix


def _check_k(k: int, num_rows: int, *, excluding: bool) -> int:
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"`k` must be an integer, got {k!r}.") from None
    if not 1 <= k <= num_rows - excluding:
        reason = "a row is not its own neighbour" if excluding else "there are no more"
        raise ValueError(f"`k` must be from 1 to {num_rows - excluding} for {num_rows} rows ({reason}), got {k}.")
    return k


def _rows(matrix: Any) -> Rows:
    return SparseRows(matrix) if sparse.issparse(matrix) else DenseRows(matrix)


def _unit(matrix: Any, name: str) -> Any:
    """Scale rows to length 1, in float64."""
    if isinstance(matrix, Tensor):
        lengths = matrix.double().norm(dim=1).cpu().numpy()
    elif sparse.issparse(matrix):
        lengths = np.sqrt(np.asarray(matrix.astype(np.float64).power(2).sum(axis=1)).ravel())
    else:
        lengths = np.linalg.norm(matrix.astype(np.float64, copy=False), axis=1)
    if not lengths.all():
        row = int((lengths == 0).argmax())
        raise ValueError(f"`{name}` must have no all-zero row under the cosine metric, got row {row}.")
    if sparse.issparse(matrix):
        return sparse.diags_array(1 / lengths).tocsr() @ matrix
    if isinstance(matrix, Tensor):
        return matrix / torch.from_numpy(lengths).to(matrix.device)[:, None]
    return matrix / lengths[:, None]


def _block(num_columns: int, working_memory: float) -> int:
    """Return how many rows can be compared with as many: a product in float64, and what it is made from."""
    side = isqrt(int(num_columns**2 + working_memory * 2**16)) - num_columns
    return min(max(side, 32), 4096)


def _by_sklearn(rows: Any, refs: Any, k: int, metric: Any, working_memory: float) -> tuple[Any, Any]:
    """Compare all with all, as scikit-learn does."""

    def nearest(distances: Array, start: int) -> tuple[Array, Array]:
        if rows is refs:
            places = np.arange(len(distances))
            distances[places, places + start] = np.inf
        last = np.partition(distances, k - 1, axis=1)[:, k - 1]
        order = [_smallest(row, bound, k) for row, bound in zip(distances, last, strict=True)]
        return np.take_along_axis(distances, np.array(order), axis=1), np.array(order)

    one_row = 8 * refs.shape[0] / 2**20
    chunks = pairwise_distances_chunked(
        rows, refs, reduce_func=nearest, metric=metric, working_memory=max(working_memory, one_row)
    )
    distances, indices = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return distances.astype(np.float64, copy=False), indices


def _smallest(row: Array, bound: float, k: int) -> Array:
    within = np.flatnonzero(row <= bound)
    return within[np.argsort(row[within], kind="stable")[:k]]
