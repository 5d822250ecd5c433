"""The public search."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import isfinite, isqrt
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

    The neighbours are those of float64 differences, whatever the offset of the data; differences whose squares vanish,
    below about 1e-162, count as 0. Ties go to the lowest index. (On CUDA sums may be rounded in another order, so that
    there distances that are equal but for the last bit need not be ties.) Without `queries` a row is never its own
    neighbour, and its exact duplicates are neighbours like any other. The first j columns of the result are the result
    for j neighbours, so one search serves whoever needs fewer.

    Args:
        X: Rows to search, shape `(N, d)`, real numbers: an array, a tensor on the CPU or on CUDA, a list, a data frame
            or a scipy sparse matrix. float32 and float64 are not copied; anything else, and float32 beside float64, is
            converted to float64.
        k: Number of neighbours, 1 to N - 1, or 1 to N with `queries`.
        queries: Rows to find neighbours for, shape `(Q, d)`, of any of these kinds; no row of `X` is excluded then. The
            rows of `X` themselves by default, which takes half the time.
        metric: `"euclidean"`; `"cosine"`, 1 - cosine of the angle, by Euclidean distance of the rows scaled to
            length 1 in float64; or any metric of `sklearn.metrics.pairwise_distances`, compared as that compares.
        working_memory: MiB of temporary arrays, about. The result, `(Q, k)`, and copies come on top: those named
            above, and one in float64 that scikit-learn's tree makes of rows of few columns.

    Returns:
        Distances, float64, and row numbers of `X`, both of shape `(Q, k)`, nearest first: tensors on the device of `X`
        where `X` is a tensor, else arrays.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is out of range, an entry NaN or infinite, a number too large to be squared, the number of
            columns different, a row all-zero under `"cosine"`, `metric` unknown, `"precomputed"`, not for CUDA, or NaN
            between two rows, or `working_memory` not above 0.

    Examples:
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
    within = queries is None
    refs = _read(X, "X")
    rows = refs if within else _like(_read(queries, "queries"), refs)
    if rows.shape[1] != refs.shape[1]:
        raise ValueError(f"`queries` must have the {refs.shape[1]} columns of `X`, got {rows.shape[1]}.")
    if sparse.issparse(rows) and not sparse.issparse(refs):
        refs = sparse.csr_array(refs)
    if rows.dtype != refs.dtype:
        rows, refs = (side.double() if isinstance(side, Tensor) else side.astype(np.float64) for side in (rows, refs))
    k = _check_k(k, refs.shape[0], excluding=within)
    if metric == "cosine":
        refs = _unit(refs, "X")
        rows = refs if within else _unit(rows, "queries")
    if metric in ("euclidean", "l2", "cosine"):
        searched = _rows(refs)
        block = _block(refs.shape[1], working_memory)
        distances, indices = search(searched if within else _rows(rows), searched, k, within=within, block=block)
        if metric == "cosine":
            distances = distances.square() / 2
        return (distances, indices) if isinstance(refs, Tensor) else (distances.numpy(), indices.numpy())
    if metric == "precomputed":
        raise ValueError(
            "`metric` must compare rows, got 'precomputed'. Of a matrix of distances take `argsort(axis=1)`."
        )
    if not isinstance(refs, Tensor):
        return _by_sklearn(rows, refs, k, metric, working_memory, within=within)
    if refs.device.type != "cpu":
        raise ValueError(f"`metric` must be 'euclidean' or 'cosine' on {refs.device}, got {metric!r}: pass `X.cpu()`.")
    found = _by_sklearn(rows.numpy(), refs.numpy(), k, metric, working_memory, within=within)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _read(matrix: Any, name: str) -> Any:
    """Return a checked tensor where `matrix` is one, else an array or a csr matrix; float32 or float64."""
    if isinstance(matrix, Tensor):
        return _check_tensor(matrix.detach(), name)
    matrix = check_array(matrix, accept_sparse="csr", dtype=[np.float64, np.float32], input_name=name)
    if sparse.issparse(matrix) and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    _check_size(float(max(matrix.max(), -matrix.min())), name)
    return matrix


def _check_tensor(matrix: Tensor, name: str) -> Tensor:
    if matrix.layout != torch.strided or matrix.is_complex():
        kind = matrix.dtype if matrix.layout == torch.strided else matrix.layout
        raise ValueError(f"`{name}` must be a dense tensor of real numbers, got {kind}.")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"`{name}` must have shape (N, d), neither of them 0, got {tuple(matrix.shape)}.")
    matrix = matrix.resolve_neg()
    matrix = matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.double()
    lowest, highest = (float(end) for end in torch.aminmax(matrix))
    if not (isfinite(lowest) and isfinite(highest)):
        row, column = (~matrix.isfinite()).nonzero()[0].tolist()
        value = matrix[row, column].item()
        raise ValueError(f"Input {name} contains NaN or infinity: {value} at row {row}, column {column}.")
    _check_size(max(highest, -lowest), name)
    return matrix


def _check_size(largest: float, name: str) -> None:
    if not largest < 1e150:
        raise ValueError(f"`{name}` must hold numbers below 1e150, whose squares are finite, got {largest}.")


def _like(queries: Any, refs: Any) -> Any:
    """Return queries as a tensor beside a tensor, as a csr matrix beside one, as an array beside an array."""
    if isinstance(refs, Tensor):
        if not isinstance(queries, Tensor):
            queries = torch.from_numpy(np.array(queries.toarray() if sparse.issparse(queries) else queries))
        return queries.to(refs.device)
    if isinstance(queries, Tensor):
        queries = queries.cpu().numpy()
    return sparse.csr_array(queries) if sparse.issparse(refs) and not sparse.issparse(queries) else queries


def _check_k(k: int, num_rows: int, *, excluding: bool) -> int:
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"`k` must be an integer, got {k!r}.") from None
    if excluding and num_rows == 1:
        raise ValueError("`X` must hold 2 rows or more where a row is not its own neighbour, got 1.")
    if not 1 <= k <= num_rows - excluding:
        reason = "a row is not its own neighbour" if excluding else "there are no more"
        raise ValueError(f"`k` must be from 1 to {num_rows - excluding} for {num_rows} rows ({reason}), got {k}.")
    return k


def _rows(matrix: Any) -> Rows:
    return SparseRows(matrix) if sparse.issparse(matrix) else DenseRows(matrix)


def _unit(matrix: Any, name: str) -> Any:
    """Scale rows to length 1, in float64: by their largest entries first, whose squares may not exist."""
    if isinstance(matrix, Tensor):
        tops = matrix.abs().amax(dim=1, keepdim=True).double()
        _check_no_zero(tops.flatten().cpu().numpy(), name)
        values = matrix.double() / tops
        return values.div_(values.norm(dim=1, keepdim=True))
    if sparse.issparse(matrix):
        tops = abs(matrix).max(axis=1).toarray().ravel().astype(np.float64)
        _check_no_zero(tops, name)
        scaled = (sparse.diags_array(1 / tops) @ matrix.astype(np.float64)).tocsr()
        lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
        return (sparse.diags_array(1 / lengths) @ scaled).tocsr()
    tops = np.maximum(matrix.max(axis=1), -matrix.min(axis=1)).astype(np.float64)
    _check_no_zero(tops, name)
    values = matrix / tops[:, None]
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def _check_no_zero(tops: Array, name: str) -> None:
    if not tops.all():
        row = int((tops == 0).argmax())
        raise ValueError(f"`{name}` must have no all-zero row under the cosine metric, got row {row}.")


def _block(num_columns: int, working_memory: float) -> int:
    """Return how many rows can be compared with as many: a product in float64, and what it is made from."""
    side = isqrt(int(num_columns**2 + min(working_memory, 2.0**20) * 2**16)) - num_columns
    return min(max(side, 32), 4096)


def _by_sklearn(
    rows: Any, refs: Any, k: int, metric: Any, working_memory: float, *, within: bool
) -> tuple[Array, Array]:
    """Compare all with all, as scikit-learn does."""

    def nearest(distances: Array, start: int) -> tuple[Array, Array]:
        itself = np.arange(start, start + len(distances)) if within else np.full(len(distances), -1)
        if within:
            distances[np.arange(len(distances)), itself] = np.inf
        if np.isnan(distances).any():
            row, column = np.argwhere(np.isnan(distances))[0]
            raise ValueError(f"`metric` {metric!r} gave nan between row {start + row} and row {column} of `X`.")
        last = np.partition(distances, k - 1, axis=1)[:, k - 1]
        order = np.array([_smallest(*row, k) for row in zip(distances, last, itself.tolist(), strict=True)])
        return np.take_along_axis(distances, order, axis=1), order

    one_row = 8 * refs.shape[0] / 2**20
    chunks = pairwise_distances_chunked(
        rows, refs, reduce_func=nearest, metric=metric, working_memory=max(working_memory, one_row)
    )
    distances, indices = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return distances.astype(np.float64, copy=False), indices


def _smallest(row: Array, bound: float, itself: int, k: int) -> Array:
    others = np.flatnonzero(row <= bound)
    others = others[others != itself]
    nearest: Array = others[np.argsort(row[others], kind="stable")[:k]]
    return nearest
