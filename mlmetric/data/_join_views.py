"""Several views as one feature matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mlmetric._views import read_views


def join_views(
    features: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike],
    *,
    present: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike | None] | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, slice]]:
    """Join the feature matrices of several views of the same rows, for the argument `views` of the estimators.

    Args:
        features: The features of each view, shape `(n, D_v)`: a dictionary from names, or a list of arrays, whose names
            are "0", "1" and so on. A row of NaN lacks the view.
        present: For views that some rows lack, which rows have the view, bool, shape `(n,)`; the features of the other
            rows may contain anything. None, or no entry for a view, means the rows that are not NaN.

    Returns:
        The features side by side, float32, shape `(n, D)`, NaN where a row lacks a view; and the columns of each view.

    Raises:
        TypeError: If a view is not a dense matrix of numbers, or its name is not a string.
        ValueError: If there is no view, a matrix has no columns or another number of rows, a row of a view is NaN in
            some columns or has infinite features, or `present` has another shape or name.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.data import join_views
        >>> X, views = join_views({"image": np.ones((2, 3)), "text": [[5.0], [np.nan]]})
        >>> X.shape, views
        ((2, 4), {'image': slice(0, 3, None), 'text': slice(3, 4, None)})
    """
    matrices = _by_name(features)
    masks = {} if present is None else _by_name(present)
    if not matrices:
        raise ValueError("`features` must contain at least one view, got none.")
    if unknown := [name for name in masks if name not in matrices]:
        raise ValueError(f"`present` must have the names of views, {list(matrices)}, got {unknown[0]!r}.")
    blocks: list[npt.NDArray[np.float32]] = []
    views: dict[str, slice] = {}
    start = 0
    for name, matrix in matrices.items():
        block = _read_view(name, matrix, masks.get(name))
        if blocks and len(block) != len(blocks[0]):
            raise ValueError(
                f"The views must have the same rows, but {next(iter(matrices))!r} has {len(blocks[0])}, and {name!r} "
                f"{len(block)}."
            )
        blocks.append(block)
        views[name] = slice(start, start + block.shape[1])
        start += block.shape[1]
    return np.concatenate(blocks, axis=1), read_views(views, start)


def _by_name(values: Mapping[str, npt.ArrayLike] | Sequence[npt.ArrayLike | None]) -> dict[str, npt.ArrayLike | None]:
    items = values.items() if isinstance(values, Mapping) else ((str(i), value) for i, value in enumerate(values))
    return dict(items)


def _read_view(name: str, matrix: npt.ArrayLike | None, mask: npt.ArrayLike | None) -> npt.NDArray[np.float32]:
    try:
        block = np.array(matrix, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The view {name!r} must be a dense matrix of numbers, got {type(matrix).__name__} ({error})."
        ) from error
    if block.ndim != 2 or block.shape[1] == 0:
        raise ValueError(f"The view {name!r} must have shape (n, D) with D >= 1, got {block.shape}.")
    has_view = np.asarray(~np.isnan(block).all(axis=1) if mask is None else mask)
    if mask is not None:
        if has_view.dtype != np.bool_ or has_view.shape != (len(block),):
            raise ValueError(
                f"`present` of the view {name!r} must be bool, shape ({len(block)},), got {has_view.dtype} of shape "
                f"{has_view.shape}."
            )
        block[~has_view] = np.nan
    wrong = has_view & ~np.isfinite(block).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"A row of a view must have finite features, or NaN in all columns, but row {int(wrong.argmax())} of "
            f"{name!r} has neither."
        )
    return block
