"""Synthetic rows in the types of `X` and `y`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse


def append(data: Any, rows: Any) -> Any:
    """Append rows of the same type and dtype.

    Args:
        data: An array, a tensor, a list, a scipy sparse matrix, a pandas data frame or a series.
        rows: Rows to append, of the same type, dtype and number of columns.

    Returns:
        The data followed by the rows, of the same type and dtype.
    """
    if isinstance(data, torch.Tensor):
        if data.layout is torch.strided:
            return torch.cat([data, rows])
        both = [part.to_sparse(layout=torch.sparse_coo) for part in (data, rows)]
        return torch.cat(both).coalesce().to_sparse(layout=data.layout)
    if isinstance(data, list):
        return data + rows
    if sparse.issparse(data):
        return type(data)(sparse.vstack([data, rows], format=data.format, dtype=data.dtype))
    if hasattr(data, "iloc"):
        import pandas as pd

        return pd.concat([data, rows])
    return np.concatenate([data, rows])


def convert_features_like(X: Any, values: Any, dtype: np.dtype[Any]) -> Any:
    """Convert features to the type and dtype of `X`; integer columns are rounded.

    Args:
        X: The rows of the input that the synthetic rows were made from, as `take_rows` returns them.
        values: Features of the synthetic rows, float64 of shape `(n, d)`, an array or a CSR matrix.
        dtype: Dtype of all rows of the input as an array, for a list, some rows of which may contain integers only.

    Returns:
        The features, with the type and dtype of `X` and, for data frames, its index and columns.

    Raises:
        TypeError: If `X` is of another type, or a column of a data frame is neither numeric nor of dtype object.
    """
    if sparse.issparse(X):
        converted = sparse.csr_array(values)
        converted.data = _cast(converted.data, X.dtype)
        return type(X)(converted.asformat(X.format))
    values = values.toarray() if sparse.issparse(values) else values
    if isinstance(X, torch.Tensor):
        is_integer = not X.is_floating_point()
        dense = torch.from_numpy(np.rint(values) if is_integer else values).to(dtype=X.dtype, device=X.device)
        return dense if X.layout is torch.strided else dense.to_sparse(layout=X.layout)
    if isinstance(X, list):
        return _cast(values, dtype).tolist()
    if hasattr(X, "isetitem"):
        for number, (name, wanted) in enumerate(X.dtypes.items()):
            if getattr(wanted, "kind", "O") not in "iubfO" or wanted.name == "category":
                raise TypeError(
                    f"`X` must have numeric columns, but column {name!r} has dtype {wanted}. "
                    "Encode it as numbers first."
                )
            column = values[:, number]
            column = np.rint(column) if wanted.kind in "iub" else column
            X.isetitem(number, type(X.iloc[:, number])(column, index=X.index).astype(wanted))
        return X
    if isinstance(X, np.ndarray):
        return _cast(values, X.dtype)
    raise TypeError(
        "`X` must be an array, a tensor, a list, a scipy sparse matrix or a pandas data frame, got "
        f"{type(X).__name__}. Pass `numpy.asarray(X)`."
    )


def _cast(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return (np.rint(values) if dtype.kind in "iub" else values).astype(dtype)
