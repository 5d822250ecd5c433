"""The public function: inputs, cosine distance, and the search by other metrics."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import isfinite, isqrt
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mlmetric.neighbors._euclidean_search import euclidean_search
from mlmetric.neighbors._row_matrix import Array, DenseRows, Rows, SparseRows


def kneighbors(
    X: Any,
    k: int,
    *,
    queries: Any = None,
    metric: str | Callable[..., float] = "euclidean",
    working_memory: float = 256,
) -> tuple[Any, Any]:
    """Find the k nearest rows of each row, exactly.

    Distances are computed from float64 differences; differences below about 1e-162, whose squares underflow, count as
    zero. Ties go to the lowest index. (On CUDA, sums may be rounded in a different order, so that distances that are
    equal up to the last bit need not be ties.) Without `queries`, a row is never its own neighbour, and its exact
    duplicates are neighbours like any other row. The first j columns of the result are the result for `k=j`.

    Args:
        X: Rows to search, shape `(N, d)`, real numbers: an array, a tensor on the CPU or on CUDA, a list, a data frame
            or a scipy sparse matrix. float32 and float64 are not copied; any other dtype, and float32 if the other
            matrix is float64, is converted to float64.
        k: Number of neighbours, from 1 to N - 1, or to N with `queries`. A larger k raises an error, as in
            scikit-learn.
        queries: Rows to find neighbours for, shape `(Q, d)`, of any of these kinds; then no row of `X` is excluded. By
            default the rows of `X`, which takes half the time.
        metric: `"euclidean"`; `"cosine"`, 1 - cosine of the angle, computed from the Euclidean distance of the rows
            scaled to unit length in float64; or any metric of `sklearn.metrics.pairwise_distances`, which then computes
            the distances.
        working_memory: Approximate size of temporary arrays in MiB, above 0. It does not include the result `(Q, k)`,
            the copies named above, and a float64 copy in scikit-learn's k-d tree, which is used for few columns.

    Returns:
        Distances, float64, and row indices of `X`, int64, both of shape `(Q, k)`, nearest first: tensors on the device
        of `X` if `X` is a tensor, otherwise arrays.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is out of range, a value is NaN, infinite or too large to be squared (1e150), the numbers of
            columns differ, a row is zero with `metric="cosine"`, `metric` is unknown, is `"precomputed"`, does not
            support CUDA or returns NaN, or `working_memory` is not above 0.

    Examples:
        >>> from mlmetric.neighbors import kneighbors
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
    exclude_self = queries is None
    refs = _check_matrix(X, "X")
    rows = refs if exclude_self else _to_same_kind(_check_matrix(queries, "queries"), refs)
    if rows.shape[1] != refs.shape[1]:
        raise ValueError(f"`queries` must have {refs.shape[1]} columns like `X`, got {rows.shape[1]}.")
    if sparse.issparse(rows) and not sparse.issparse(refs):
        refs = sparse.csr_array(refs)
    if rows.dtype != refs.dtype:
        rows, refs = (side.double() if isinstance(side, Tensor) else side.astype(np.float64) for side in (rows, refs))
    k = _check_k(k, refs.shape[0], exclude_self=exclude_self)
    if metric == "cosine":
        refs = _to_unit_length(refs, "X")
        rows = refs if exclude_self else _to_unit_length(rows, "queries")
    if metric in ("euclidean", "l2", "cosine"):
        ref_rows = _to_rows(refs)
        query_rows = ref_rows if exclude_self else _to_rows(rows)
        block_size = _block_size(refs.shape[1], working_memory)
        distances, indices = euclidean_search(query_rows, ref_rows, k, exclude_self=exclude_self, block_size=block_size)
        if metric == "cosine":
            distances = distances.square() / 2
        return (distances, indices) if isinstance(refs, Tensor) else (distances.numpy(), indices.numpy())
    if metric == "precomputed":
        raise ValueError(
            "`metric` must compare rows, got 'precomputed'. For a matrix of distances, use `argsort(axis=1)`."
        )
    if not isinstance(refs, Tensor):
        return _sklearn_search(rows, refs, k, metric, working_memory, exclude_self=exclude_self)
    if refs.device.type != "cpu":
        raise ValueError(f"`metric` must be 'euclidean' or 'cosine' on {refs.device}, got {metric!r}: pass `X.cpu()`.")
    found = _sklearn_search(rows.numpy(), refs.numpy(), k, metric, working_memory, exclude_self=exclude_self)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def _check_matrix(matrix: Any, name: str) -> Any:
    """Check `matrix` and return a tensor for a tensor, otherwise an array or a csr matrix, in float32 or float64."""
    if isinstance(matrix, Tensor):
        return _check_tensor(matrix.detach(), name)
    from sklearn.utils import check_array  # imported here because metrics on tensors never need scikit-learn

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
        raise ValueError(f"`{name}` must have shape (N, d) with N and d above 0, got {tuple(matrix.shape)}.")
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
        raise ValueError(f"`{name}` must contain values below 1e150, so that their squares are finite, got {largest}.")


def _to_same_kind(queries: Any, refs: Any) -> Any:
    """Convert queries to a tensor on the device of a tensor `refs`, or to a csr matrix if `refs` is one."""
    if isinstance(refs, Tensor):
        if not isinstance(queries, Tensor):
            queries = torch.from_numpy(np.array(queries.toarray() if sparse.issparse(queries) else queries))
        return queries.to(refs.device)
    if isinstance(queries, Tensor):
        queries = queries.cpu().numpy()
    return sparse.csr_array(queries) if sparse.issparse(refs) and not sparse.issparse(queries) else queries


def _check_k(k: int, num_rows: int, *, exclude_self: bool) -> int:
    try:
        k = operator.index(k)
    except TypeError:
        raise TypeError(f"`k` must be an integer, got {k!r}.") from None
    if exclude_self and num_rows == 1:
        raise ValueError(
            "`X` must have at least 2 rows without `queries`, because a row is not its own neighbour; got 1."
        )
    if not 1 <= k <= num_rows - exclude_self:
        reason = " (a row is not its own neighbour)" if exclude_self else ""
        raise ValueError(f"`k` must be from 1 to {num_rows - exclude_self} for {num_rows} rows{reason}, got {k}.")
    return k


def _to_rows(matrix: Any) -> Rows:
    return SparseRows(matrix) if sparse.issparse(matrix) else DenseRows(matrix)


def _to_unit_length(matrix: Any, name: str) -> Any:
    """Scale rows to unit length in float64; first by their largest entries, whose squares may overflow or underflow."""
    if isinstance(matrix, Tensor):
        maxima = matrix.abs().amax(dim=1, keepdim=True).double()
        _check_no_zero_row(maxima.flatten().cpu().numpy(), name)
        values = matrix.double() / maxima
        return values.div_(values.norm(dim=1, keepdim=True))
    if sparse.issparse(matrix):
        maxima = abs(matrix).max(axis=1).toarray().ravel().astype(np.float64)
        _check_no_zero_row(maxima, name)
        scaled = (sparse.diags_array(1 / maxima) @ matrix.astype(np.float64)).tocsr()
        lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
        return (sparse.diags_array(1 / lengths) @ scaled).tocsr()
    maxima = np.maximum(matrix.max(axis=1), -matrix.min(axis=1)).astype(np.float64)
    _check_no_zero_row(maxima, name)
    values = matrix / maxima[:, None]
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


def _check_no_zero_row(maxima: Array, name: str) -> None:
    if not maxima.all():
        row = int((maxima == 0).argmax())
        raise ValueError(f'`{name}` must contain no zero row with `metric="cosine"`, got one at row {row}.')


def _block_size(num_columns: int, working_memory: float) -> int:
    """Return the number of rows on each side of a float64 product that fits in memory together with its operands."""
    side = isqrt(int(num_columns**2 + min(working_memory, 2.0**20) * 2**16)) - num_columns
    return min(max(side, 32), 4096)


def _sklearn_search(
    rows: Any, refs: Any, k: int, metric: Any, working_memory: float, *, exclude_self: bool
) -> tuple[Array, Array]:
    """Compare all pairs by scikit-learn's `pairwise_distances`, in chunks."""
    from sklearn.metrics import pairwise_distances_chunked

    def nearest(distances: Array, start: int) -> tuple[Array, Array]:
        own = np.arange(start, start + len(distances)) if exclude_self else np.full(len(distances), -1)
        if exclude_self:
            distances[np.arange(len(distances)), own] = np.inf
        if np.isnan(distances).any():
            row, column = np.argwhere(np.isnan(distances))[0]
            raise ValueError(f"`metric` {metric!r} returned NaN between row {start + row} and row {column} of `X`.")
        kth_smallest = np.partition(distances, k - 1, axis=1)[:, k - 1]
        order = np.array([_nearest(*row, k) for row in zip(distances, kth_smallest, own.tolist(), strict=True)])
        return np.take_along_axis(distances, order, axis=1), order

    one_row = 8 * refs.shape[0] / 2**20  # MiB
    chunks = pairwise_distances_chunked(
        rows, refs, reduce_func=nearest, metric=metric, working_memory=max(working_memory, one_row)
    )
    distances, indices = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return distances.astype(np.float64, copy=False), indices


def _nearest(row: Array, kth_smallest: float, own: int, k: int) -> Array:
    others = np.flatnonzero(row <= kth_smallest)
    others = others[others != own]
    nearest: Array = others[np.argsort(row[others], kind="stable")[:k]]
    return nearest
