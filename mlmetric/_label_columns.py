"""Label matrices and label names that estimators are fitted on, and their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer

from mlmetric.labels import LabelsLike, label_array

LabelsOrNames: TypeAlias = LabelsLike | Sequence[Iterable[str]]
"""A label matrix of any kind that `check_labels` reads, or for each row its label names."""


class LabelColumns(NamedTuple):
    """The columns of the labels that an estimator was fitted on: their number, and their names if `y` had any."""

    number: int
    names: list[Any] | None


def read_labels(
    y: LabelsOrNames,
    *,
    columns: LabelColumns | None = None,
    allow_missing: bool = False,
    used_by: str = "this function",
) -> tuple[npt.NDArray[Any], LabelColumns]:
    """Return a label matrix and its columns.

    Args:
        y: A label matrix of any kind that `check_labels` reads, or label names for each row.
        columns: The columns of `fit`, to whose order label names and data frames are converted.
        allow_missing: Whether labels may be NaN, which means that they are not annotated.
        used_by: What does not support missing labels, named in the error.

    Returns:
        The matrix, shape `(n, L)`, and its columns; names are sorted.

    Raises:
        TypeError: If `y` contains neither numbers nor names.
        ValueError: If it is not a matrix in [0, 1], or has other columns.
    """
    names = _label_names(y)
    if names is not None:
        if columns is None:
            columns = LabelColumns(0, sorted({label for row in names for label in row}))
        if columns.names is None:
            raise ValueError("`y` must be a label matrix as in `fit`, got label names.")
        unknown = {label for row in names for label in row} - set(columns.names)
        if unknown:
            raise ValueError(f"`y` has labels that are not in `classes_`: {sorted(unknown)}.")
        matrix = MultiLabelBinarizer(classes=columns.names).fit_transform(names)
        return matrix, LabelColumns(matrix.shape[1], columns.names)
    given = None if not hasattr(y, "columns") else list(y.columns)
    if given is not None and columns is not None and columns.names is not None:
        if len(given) != len(columns.names) or set(given) != set(columns.names):
            raise ValueError(f"`y` must have the columns {columns.names}, got {given}.")
        y = y[columns.names]  # type: ignore[call-overload,index]
    labels = label_array(y, name="y", allow_missing=allow_missing, used_by=used_by)
    if columns is not None and columns.number != labels.shape[1]:
        raise ValueError(f"`y` must have the {columns.number} labels of `fit`, got {labels.shape[1]}.")
    return labels, columns or LabelColumns(labels.shape[1], given)


def read_hard_labels(y: LabelsOrNames, *, estimator: Any) -> tuple[npt.NDArray[np.int64], LabelColumns]:
    """Return the labels, 0 or 1, that `fit` of an estimator receives, and their columns.

    Raises:
        TypeError: If `y` contains neither numbers nor names.
        ValueError: If it is None or not a matrix of entries 0 and 1 with at least one column.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None: pass labels "
            "of shape (n, L)."
        )
    labels, columns = read_labels(y, used_by=f"`{type(estimator).__name__}`")
    if labels.shape[1] == 0:
        raise ValueError("`y` must have a column for each label, got 0 columns.")
    soft = (labels != 0) & (labels != 1)
    if soft.any():
        raise ValueError(
            f"`y` must contain only 0 and 1, got {labels[soft][0]:g}. Convert soft labels with a comparison such as "
            "`y >= 0.5`."
        )
    return labels.astype(np.int64), columns


def classes_of(columns: LabelColumns) -> npt.NDArray[Any]:
    """Return `classes_`: names, or `[0, 1]` for each label, shape `(L, 2)`.

    scikit-learn's scorers mistake one or two names for the classes of a binary target. With fewer than three labels,
    `classes_` is therefore `[0, 1]` for each label, even if they have names.
    """
    if columns.names is None or columns.number < 3:
        return np.tile([0, 1], (columns.number, 1))
    return np.array(columns.names, dtype=object)


def _label_names(y: Any) -> list[Any] | None:
    """Return rows of label names as a list; None if `y` is anything else."""
    if sparse.issparse(y) or getattr(y, "ndim", 1) != 1:
        return None
    try:
        rows = list(y)
    except TypeError:
        return None
    if not all(isinstance(row, list | tuple | set | frozenset | np.ndarray) for row in rows):
        return None
    is_names = all(isinstance(label, str) for row in rows for label in row) and any(len(row) for row in rows)
    return rows if is_names else None
