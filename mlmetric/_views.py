"""Views: named blocks of columns of a feature matrix, such as the features of an image and those of its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_LONGEST_NAME = 50
Views = Mapping[str, slice]
"""For each view its name and its columns."""


def read_views(views: Any, num_features: int) -> dict[str, slice]:
    """Check views, and return them with start and stop, in the order of their columns.

    Args:
        views: For each view its name and its columns: a slice, or a pair of start and stop.
        num_features: D, the number of columns of the feature matrix.

    Returns:
        The views; each column is in one of them.

    Raises:
        TypeError: If `views` is not a mapping from names to slices.
        ValueError: If a view has no columns or a step, columns overlap, or a column is in no view.
    """
    if not isinstance(views, Mapping) or not all(isinstance(name, str) for name in views):
        raise TypeError(f"`views` must map names to slices of columns, got {views!r}.")
    if not views:
        raise ValueError("`views` must contain at least one view, got none.")
    for name in views:
        if not name or len(name) > _LONGEST_NAME or set(name) & set("/\\\0"):  # checkpoints of a view have its name
            raise ValueError(
                f"A name in `views` must have 1 to {_LONGEST_NAME} characters, without / and \\, got {name!r:.200}."
            )
    read = {name: _read_columns(name, columns, num_features) for name, columns in views.items()}
    ordered = dict(sorted(read.items(), key=lambda item: item[1].start))
    stop, before = 0, None
    for name, columns in ordered.items():
        if columns.start < stop:
            raise ValueError(f"`views` must not overlap, but {before!r} and {name!r} share column {columns.start}.")
        if columns.start > stop:
            break
        stop, before = columns.stop, name
    if stop != num_features:
        raise ValueError(
            f"`views` must contain each of {num_features} columns of the features, but column {stop} is in no view."
        )
    return ordered


def _read_columns(name: str, columns: Any, num_features: int) -> slice:
    if isinstance(columns, tuple | list) and len(columns) == 2:
        columns = slice(*columns)
    if not isinstance(columns, slice):
        raise TypeError(f"`views[{name!r}]` must be a slice of columns, got {columns!r}.")
    given = columns
    try:
        start, stop, step = columns.indices(num_features)
    except TypeError as error:
        raise TypeError(f"`views[{name!r}]` must be a slice of whole numbers, got {columns!r}.") from error
    ends = [end for end in (given.start, given.stop) if end is not None]
    if step != 1 or stop <= start or any(not -num_features <= end <= num_features for end in ends):
        raise ValueError(
            f"`views[{name!r}]` must be a slice of at least one of {num_features} columns, without a step, got {given}."
        )
    return slice(start, stop)


def view_presence(features: Tensor, views: Views) -> Tensor:
    """Return for each row and view whether the row has the view, that is, whether none of its columns is NaN.

    Args:
        features: Shape `(N, D)`.
        views: V views.

    Returns:
        Bool, shape `(N, V)`.
    """
    return torch.stack([~features[:, columns].isnan().any(dim=1) for columns in views.values()], dim=1)


def check_missing_views(features: Tensor, views: Views) -> None:
    """Check that each row has at least one view, and that its other views are NaN in all columns.

    Raises:
        ValueError: If a row has no view, or only some columns of a view are NaN.
    """
    for name, columns in views.items():
        missing = features[:, columns].isnan()
        partly = missing.any(dim=1) & ~missing.all(dim=1)
        if bool(partly.any()):
            row = int(partly.nonzero()[0])
            raise ValueError(
                f"A row without a view must have NaN in all columns of the view, but row {row} has "
                f"{int(missing[row].sum())} NaN in {missing.shape[1]} columns of the view {name!r}."
            )
    without = ~view_presence(features, views).any(dim=1)
    if bool(without.any()):
        raise ValueError(
            f"Each row must have at least one view, but {int(without.sum())} of {len(features)} have none; the first "
            f"is row {int(without.nonzero()[0])}. Remove these rows."
        )
