"""Checks of models, and conversion of embeddings, labels and ids to the form that an index stores."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence, Set
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from mlmetric.labels import LabelsLike, label_array

Array = npt.NDArray[Any]
LabelSets: TypeAlias = LabelsLike | Sequence[Iterable[str]]
"""A label matrix, or the names of the labels of each row."""
_VALUES_PER_BLOCK = 2**20


def choose_label_names(label_names: Iterable[str] | None, model: Any) -> list[str] | None:
    """Check that a model embeds images, and return its label names or `label_names`, which must agree."""
    names = None if label_names is None else check_label_names(label_names)
    if model is None:
        return names
    if not all(callable(getattr(model, method, None)) for method in ("embed", "predict")):
        raise TypeError(f"`model` must have the methods `embed` and `predict`, got {type(model).__name__}.")
    if getattr(model, "backbone", model) is None:
        raise ValueError(
            "`model` must compute embeddings of images, got a model on features, without backbone: pass "
            "`model.embed(features)` as rows and queries."
        )
    of_model = getattr(model, "label_names", None)
    if names is None or of_model is None:
        return names if of_model is None else check_label_names(of_model)
    differing = sorted(set(names) ^ set(of_model))
    if differing:
        raise ValueError(f"`label_names` must be those of `model`, got {differing[0]!r}, which one of them lacks.")
    return names


def is_embedding_matrix(rows: Any) -> bool:
    """Return whether `rows` is a matrix of numbers rather than one or many images."""
    if isinstance(rows, list | tuple):
        return bool(rows) and np.ndim(rows[0]) == 1
    return getattr(rows, "ndim", None) == 2


def embedding_matrix(rows: Any, name: str, width: int | None, *, unit_length: bool) -> npt.NDArray[np.float32]:
    """Check embeddings, and return a copy as float32.

    Args:
        rows: Shape `(n, D)`.
        name: Name of the argument in error messages.
        width: D of the index; None for any.
        unit_length: Whether to scale the rows to unit length, in float64.
    """
    if isinstance(rows, torch.Tensor):
        rows = rows.detach().cpu()
        rows = rows.float().numpy() if rows.dtype == torch.bfloat16 else rows.numpy()
    try:
        matrix = np.asarray(rows)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise ValueError(f"`{name}` must be embeddings of shape (n, D): {error}.") from error
    if matrix.dtype.kind not in "fiub":
        raise TypeError(
            f"`{name}` must be embeddings, a matrix of numbers of shape (n, D), got {rows!r:.60}. An index with "
            "`model=` also accepts images."
        )
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(
            f"`{name}` must be embeddings of shape (n, D) with D above 0, got shape {matrix.shape}."
            + (" Pass one embedding as `embedding[None]`." if matrix.ndim == 1 else "")
        )
    if width not in (None, matrix.shape[1]):
        raise ValueError(f"`{name}` must have {width} columns like the index, got {matrix.shape[1]}.")
    result = np.empty(matrix.shape, dtype=np.float32)
    size = max(1, _VALUES_PER_BLOCK // matrix.shape[1])
    for start in range(0, len(matrix), size):
        block = matrix[start : start + size].astype(np.float64)
        with np.errstate(over="ignore"):
            finite = np.isfinite(block if unit_length else block.astype(np.float32))
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            raise ValueError(
                f"`{name}` must contain numbers that are finite in float32, got {block[row, column]} at row "
                f"{start + row}, column {column}."
            )
        if unit_length:
            # First by the largest entry, so that squares neither overflow nor all underflow.
            largest = np.abs(block).max(axis=1, keepdims=True)
            if not largest.all():
                row = start + int((largest == 0).argmax())
                raise ValueError(f'`{name}` must contain no zero row with `metric="cosine"`, got one at row {row}.')
            block /= largest
            block /= np.linalg.norm(block, axis=1, keepdims=True)
        result[start : start + size] = block
    return result


def label_matrix(
    labels: LabelSets, label_names: Sequence[str] | None, num_rows: int, rows_name: str, width: int | None
) -> Array:
    """Check labels, and return a copy as a matrix: uint8 for label sets, float32 for soft labels.

    Args:
        labels: A label matrix, or the names of the labels of each row.
        label_names: Names of the columns, or None.
        num_rows: Number of rows that must be labelled.
        rows_name: Name of the argument with these rows in error messages.
        width: Number of columns of the index; None for any.
    """
    names = _label_name_sets(labels)
    matrix = label_array(labels, used_by="`SearchIndex`") if names is None else _from_names(names, label_names)
    if len(matrix) != num_rows or not matrix.shape[1]:
        raise ValueError(
            f"`labels` must have a row for each of the {num_rows} rows of `{rows_name}` and at least one column, got "
            f"shape {matrix.shape}."
        )
    if label_names is not None and matrix.shape[1] != len(label_names):
        raise ValueError(
            f"`labels` must have {len(label_names)} columns, one for each of `label_names`, got {matrix.shape[1]}."
        )
    if width not in (None, matrix.shape[1]):
        raise ValueError(f"`labels` must have {width} columns like the index, got {matrix.shape[1]}.")
    is_label_set = bool(((matrix == 0) | (matrix == 1)).all())
    return matrix.astype(np.uint8 if is_label_set else np.float32)


def _label_name_sets(labels: Any) -> list[list[str]] | None:
    """Return the names in each row, or None if `labels` is not a list of collections of names."""
    if getattr(labels, "ndim", None) == 1:  # a column of a data frame
        labels = list(labels)
    if not isinstance(labels, list | tuple):
        return None
    if any(isinstance(row, str) for row in labels):
        row = next(row for row in labels if isinstance(row, str))
        raise TypeError(
            f"`labels` must contain a collection of names for each row, got the string {row!r}: write [{row!r}] for a "
            "row with one label."
        )
    rows = [list(row) if isinstance(row, Iterable) else [row] for row in labels]
    is_names = all(isinstance(name, str) for row in rows for name in row)
    return rows if rows and is_names else None


def _from_names(rows: list[list[str]], label_names: Sequence[str] | None) -> npt.NDArray[np.uint8]:
    if label_names is None:
        raise ValueError("`labels` contains names, and this index has none: pass `label_names` to `SearchIndex`.")
    columns = {name: column for column, name in enumerate(label_names)}
    matrix = np.zeros((len(rows), len(label_names)), dtype=np.uint8)
    for number, row in enumerate(rows):
        for name in row:
            if name not in columns:
                raise ValueError(f"`labels[{number}]` contains {name!r}, which is not one of `label_names`.")
            matrix[number, columns[name]] = 1
    return matrix


def check_label_names(label_names: Iterable[str]) -> list[str]:
    """Check that label names are strings, and different."""
    names = list(label_names) if _has_order(label_names) else [None]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"`label_names` must be a list of strings, got {label_names!r:.60}.")
    if not names:
        raise ValueError("`label_names` must contain at least one name, got none.")
    names = [str(name) for name in names]  # numpy's strings are a subclass
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`label_names` must be different, got {repeated!r} more than once.")
    return names


def _has_order(values: Any) -> bool:
    """Return whether a value is a sequence of several, such as a list; a set has no order."""
    return isinstance(values, Iterable) and not isinstance(values, str | bytes | Set)


def id_list(ids: Iterable[str | int], known: set[str | int]) -> list[str | int]:
    """Check ids, which must differ from each other and from `known`, and return them as strings and Python integers."""
    if not _has_order(ids):
        raise TypeError(f"`ids` must be a list with an id for each row, got {ids!r:.60}.")
    values = [_check_id(value, row) for row, value in enumerate(ids)]
    seen: set[str | int] = set()
    for row, value in enumerate(values):
        if value in known:
            raise ValueError(f"`ids` must be unique, got {value!r} at row {row}, which the index already contains.")
        if value in seen:
            raise ValueError(f"`ids` must be unique, got {value!r} at row {row}, which an earlier row has too.")
        seen.add(value)
    return values


def _check_id(value: Any, row: int) -> str | int:
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass
    hint = " Convert paths with `str`." if isinstance(value, PathLike) else ""
    raise TypeError(f"`ids` must be strings or integers, got {value!r:.60} at row {row}.{hint}")


def join(parts: list[Array]) -> Array:
    """Join the parts into one, which replaces them in the list, and return a read-only view of it."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    joined = np.asarray(parts[0]).view()
    joined.flags.writeable = False
    return joined


def predict_and_embed(model: Any, images: Any) -> tuple[list[list[str]] | None, Any]:
    """Return the label names (None without images) and the embeddings, in one call if the model supports it."""
    images = list(images) if isinstance(images, Iterator) else images
    if hasattr(model, "predict_and_embed"):
        predicted, embeddings = model.predict_and_embed(images)
    else:
        predicted, embeddings = model.predict(images), model.embed(images)
    return [list(names) for names in predicted] or None, embeddings
