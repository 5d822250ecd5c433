"""Conversion of `y` to a hard label matrix, and of resampled data to the types of `X` and `y`."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.multiclass import check_classification_targets

from mlmetric._label_matrix import missing_hint
from mlmetric.labels import label_array

LabelArray: TypeAlias = npt.NDArray[np.uint8]
RowIndices: TypeAlias = npt.NDArray[np.intp]
RowMask: TypeAlias = npt.NDArray[np.bool_]


def read_labels(y: Any, *, used_by: str) -> tuple[LabelArray, bool]:
    """Convert `y` to a hard label matrix, and return whether it contains class ids.

    The error for missing labels says that `used_by` does not support them.
    """
    y = _list_to_array(y)
    if getattr(y, "ndim", 2) == 1 or getattr(y, "shape", (0, 0))[1:] == (1,):
        column = check_array(to_cpu(y), accept_sparse=True, dtype=None, ensure_2d=False, input_name="y")
        values = column.toarray() if sparse.issparse(column) else column
        if values.ndim == 1 or not ((values == 0) | (values == 1)).all():
            return _one_hot(values.ravel()), True
    else:
        values = label_array(y, name="y", validate_args=False)
        hard = (values == 0) | (values == 1)
        if not hard.all():
            row, column = np.argwhere(~hard)[0]
            value = values[row, column]
            advice = (
                "Convert soft labels with a threshold, for example `y >= 0.5`, and annotator votes with "
                "`mlmetric.labels.votes_to_labels`."
            )
            raise ValueError(
                f"`y` must contain hard labels, 0 or 1, got {value} at row {row}, label {column}. "
                f"{advice if value == value else missing_hint(used_by)}"
            )
    return values.astype(np.uint8), False


def _list_to_array(y: Any) -> Any:
    """Convert a list of numbers or of class ids to an array; leave lists of label names to `label_array`."""
    if not isinstance(y, list | tuple):
        return y
    try:
        values = np.asarray(y)
    except ValueError:  # rows of different lengths
        return y
    has_names = values.dtype == object and any(isinstance(v, set | frozenset | list | tuple) for v in values.flat)
    return y if has_names else values


def _one_hot(class_ids: npt.NDArray[Any]) -> LabelArray:
    check_classification_targets(class_ids)
    classes, indices = np.unique(class_ids, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("`y` must contain at least 2 classes if it contains class ids, got 1 class.")
    return np.eye(len(classes), dtype=np.uint8)[indices]


def to_cpu(data: Any) -> Any:
    """Return a tensor as a dense CPU tensor of a dtype that numpy supports, and any other object unchanged."""
    if not isinstance(data, torch.Tensor):
        return data
    data = data.detach().cpu()
    data = data if data.layout is torch.strided else data.to_dense()
    return data.float() if data.dtype == torch.bfloat16 else data


def take_rows(data: Any, rows: RowIndices) -> Any:
    """Return the rows of `X` or `y` in the type of that object."""
    if isinstance(data, torch.Tensor):
        indices = torch.from_numpy(rows).to(data.device)
        if data.layout is torch.strided:
            return data[indices]
        return data.to_sparse(layout=torch.sparse_coo).index_select(0, indices).to_sparse(layout=data.layout)
    if sparse.issparse(data):
        return data.tocsr()[rows].asformat(data.format)
    return _safe_indexing(data, rows)


def convert_labels_like(y: Any, labels: LabelArray) -> Any:
    """Convert `labels` to the type and dtype of `y`, the rows that `take_rows` returned."""
    if isinstance(y, torch.Tensor):
        dense = torch.from_numpy(labels).to(y)
        return dense if y.layout is torch.strided else dense.to_sparse(layout=y.layout)
    if isinstance(y, list):
        return labels.astype(np.asarray(y).dtype).tolist()
    if sparse.issparse(y):
        return type(y)(labels.astype(y.dtype))
    if hasattr(y, "isetitem"):
        for column in range(labels.shape[1]):
            values = y.iloc[:, column]
            wanted = type(values)(labels[:, column], index=y.index)
            y.isetitem(column, _to_categories(values, wanted) if _is_category(values) else wanted.astype(values.dtype))
        return y
    if isinstance(y, np.ndarray):
        return labels.astype(y.dtype)
    raise TypeError(
        f"`y` must be an array, a tensor, a list, a scipy sparse matrix or a pandas data frame if its labels are "
        f"changed, got {type(y).__name__}. Pass `numpy.asarray(y)`."
    )


def _is_category(values: Any) -> bool:
    return bool(values.dtype.name == "category")


def _to_categories(values: Any, wanted: Any) -> Any:
    """Return a column of categories with other labels, `wanted`."""
    for label in (0, 1):
        changed = (wanted == label) & (values.astype(object) != label)
        if changed.any():
            values = values.mask(changed, _category(values, label))
    return values


def _category(values: Any, label: int) -> Any:
    for category in values.cat.categories:
        if category == label:
            return category
    raise ValueError(
        f"`y` must have the category {label} in each column whose labels are changed, but column {values.name!r} has "
        f"{values.cat.categories.tolist()}. `y.astype(int)` has no categories."
    )
