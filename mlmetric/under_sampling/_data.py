"""How `y` is read, how rows are taken, and how results are given back in the kind they came in."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.multiclass import check_classification_targets

LabelArray: TypeAlias = npt.NDArray[np.uint8]
Rows: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]


def read_labels(y: Any) -> tuple[LabelArray, bool]:
    """Read `y` as a hard label matrix, and say whether it holds class ids."""
    checked = check_array(_as_array(on_host(y)), accept_sparse=True, dtype=None, ensure_2d=False, input_name="y")
    values = checked.toarray() if sparse.issparse(checked) else checked
    hard = (values == 0) | (values == 1)
    if values.ndim == 1 or (values.shape[1] == 1 and not hard.all()):
        check_classification_targets(values)
        classes, ids = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ValueError("`y` must hold at least 2 classes where it holds class ids, got 1 class.")
        return np.eye(len(classes), dtype=np.uint8)[ids.ravel()], True
    if not hard.all():
        row, column = np.argwhere(~hard)[0]
        raise ValueError(
            f"`y` must hold hard labels, 0 or 1, got {values[row].tolist()[column]!r} at row {row}, label {column}. "
            "Soft labels become hard by a threshold, say `y >= 0.5`; votes by `mlmetric.labels.votes_to_labels`; lists "
            "of names by `sklearn.preprocessing.MultiLabelBinarizer`."
        )
    return values.astype(np.uint8), False


def _as_array(y: Any) -> Any:
    """Return a list as an array, anything else as it is; lists of names are refused."""
    if not isinstance(y, list | tuple):
        return y
    try:
        values = np.asarray(y)
    except ValueError as error:
        raise ValueError(
            "`y` must hold 0 or 1 for each label of each row, or one class id a row, got rows of different lengths. "
            "Lists of labels become the former by `sklearn.preprocessing.MultiLabelBinarizer`."
        ) from error
    if values.dtype == object and any(isinstance(value, set | frozenset) for value in values.flat):
        raise ValueError(
            "`y` must hold 0 or 1 for each label of each row, or one class id a row, got sets. "
            "Sets of labels become the former by `sklearn.preprocessing.MultiLabelBinarizer`."
        )
    return values


def on_host(data: Any) -> Any:
    """Return a tensor as one that numpy can read; anything else as it is."""
    if not isinstance(data, torch.Tensor):
        return data
    data = data.detach().cpu()
    return data.float() if data.dtype == torch.bfloat16 else data


def take_rows(data: Any, rows: Rows) -> Any:
    """Return rows of the caller's own object, in its kind."""
    if isinstance(data, torch.Tensor):
        return data[torch.from_numpy(rows).to(data.device)]
    if sparse.issparse(data):
        return data.tocsr()[rows].asformat(data.format)
    return _safe_indexing(data, rows)


def write_labels(y: Any, labels: LabelArray) -> Any:
    """Return `labels` in the kind and dtype of `y`, rows just taken from the caller's object."""
    if isinstance(y, torch.Tensor):
        return torch.from_numpy(labels).to(y)
    if isinstance(y, list):
        return labels.astype(np.asarray(y).dtype).tolist()
    if sparse.issparse(y):
        return type(y)(labels.astype(y.dtype))
    if hasattr(y, "isetitem"):
        for column in range(labels.shape[1]):
            values = y.iloc[:, column]
            if values.dtype.name == "category":
                kept, zero = labels[:, column] == 1, _zero_category(values)
                written = values if kept.all() else values.where(kept, zero)
            else:
                written = type(values)(labels[:, column], index=y.index).astype(values.dtype)
            y.isetitem(column, written)
        return y
    if isinstance(y, np.ndarray):
        return labels.astype(y.dtype)
    raise TypeError(
        f"`y` must be an array, a tensor, a list, a scipy sparse matrix or a pandas data frame to be edited, got "
        f"{type(y).__name__}. Pass `numpy.asarray(y)`."
    )


def _zero_category(values: Any) -> Any:
    for category in values.cat.categories:
        if category == 0:
            return category
    raise ValueError(
        f"`y` must have the category 0 in each column from which a label is dropped, column {values.name!r} has "
        f"{values.cat.categories.tolist()}. `y.astype(int)` needs none."
    )
