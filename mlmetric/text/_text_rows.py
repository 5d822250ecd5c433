"""Checks of the texts, and rows of texts, that users pass."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse


def check_texts(texts: Any) -> list[str]:
    """Return the texts of a list, an array or a series.

    Raises:
        TypeError: If this is one text, or contains anything but texts.
        ValueError: If there are none.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"`texts` must be a list of texts, got {type(texts).__name__}.")
    values = list(texts)
    if not values:
        raise ValueError("`texts` must contain at least one text, got none.")
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"`texts` must contain texts only, got {value!r} of type {type(value).__name__} at position {number}."
            )
    return values


def read_text_rows(X: Any, name: str = "X") -> list[list[str]]:
    """Return the texts of each row, without missing and blank ones.

    Args:
        X: For each row a text, a list, tuple or array of texts, or a missing value: None, NaN or the missing value of
            pandas. A list, an array or a series of rows, or a matrix or a data frame of one column.
        name: Name of the argument in error messages.

    Returns:
        A list of texts for each row, empty for a row without text.

    Raises:
        TypeError: If this is one text or no list, or a row contains anything else.
        ValueError: If there are no rows, or several columns.
    """
    if isinstance(X, str | os.PathLike):
        raise TypeError(f"`{name}` must be a list with the text of each row, got one text: pass [{str(X)!r}].")
    rows = _rows_of(X, name)
    if not rows:
        raise ValueError(f"`{name}` must contain at least one row, got none.")
    return [_texts_of(value, row, name) for row, value in enumerate(rows)]


def mean_by_row(rows: list[list[str]], texts: list[str], features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean of the features of the texts of each row, NaN where there are none.

    Args:
        rows: The texts of each row.
        texts: The distinct texts.
        features: Their features, float32, shape `(len(texts), D)`.

    Returns:
        float32, shape `(len(rows), D)`.
    """
    places = {text: place for place, text in enumerate(texts)}
    counts = np.array([len(row) for row in rows])
    weights = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
    columns = np.array([places[text] for row in rows for text in row], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    means = sparse.csr_matrix((weights, columns, starts), shape=(len(rows), len(texts))) @ features
    means[counts == 0] = np.nan
    return np.asarray(means, dtype=np.float32)


def _rows_of(X: Any, name: str) -> list[Any]:
    if isinstance(X, list | tuple):
        return list(X)
    if not hasattr(X, "__array__"):
        raise TypeError(f"`{name}` must be a list, an array, a series or a data frame, got {type(X).__name__}.")
    values = np.asarray(X, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"`{name}` must have one column, got {type(X).__name__} of shape {values.shape}. Pass several texts of a "
            "row as a list in that column."
        )
    return list(values)


def _texts_of(value: Any, row: int, name: str) -> list[str]:
    several = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)
    texts = [part for part in (value if several else [value]) if not _is_missing(part)]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"`{name}` must contain a text, a list of texts or None for each row, got {text!r} of type "
                f"{type(text).__name__} at row {row}."
            )
    return [text for text in texts if text.strip()]


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
