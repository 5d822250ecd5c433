"""Results of a search, and the labels that they share with the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Hit(NamedTuple):
    """One row that a search found.

    Attributes:
        id: Id of the row.
        distance: Distance to the query.
        labels: Names of the labels of the row; of soft labels those above 0.
        shared: For each label that both rows have, its share of the Jaccard similarity of their label sets, highest
            first: the smaller of its two values, divided by the sum of the larger values of all labels. For label sets,
            this is 1 divided by the size of the union. The shares add up to the similarity. Empty if the rows share no
            label, or if the labels of the query are not known.
    """

    id: str | int
    distance: float
    labels: tuple[str, ...]
    shared: dict[str, float]


def check_found(distances: Any, indices: Any, num_rows: int) -> tuple[Array, Array]:
    """Check the result of a search among `num_rows` rows, and return it as arrays of shape `(Q, k)`."""
    values, rows = np.asarray(distances), np.asarray(indices)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"`indices` must be integers, got {rows.dtype}.")
    if values.shape != rows.shape or rows.ndim != 2:
        raise ValueError(
            f"`distances` and `indices` must have the same shape (Q, k), got {values.shape} and {rows.shape}."
        )
    is_wrong = (rows < -1) | (rows >= num_rows)
    if is_wrong.any():
        raise ValueError(
            f"`indices` must be from 0 to {num_rows - 1}, or -1 where nothing was found, got {rows[is_wrong][0]}."
        )
    return values, rows


def make_hits(
    distances: Array,
    indices: Array,
    ids: Sequence[str | int],
    ref_labels: Array | None,
    labels: Array | None,
    label_names: Sequence[str] | None,
) -> list[list[Hit]]:
    """Make the hits of each query.

    Args:
        distances: Shape `(Q, k)`.
        indices: Row numbers, shape `(Q, k)`; -1 is skipped.
        ids: N ids.
        ref_labels: Labels of the rows, shape `(N, L)`, or None.
        labels: Labels of the queries, shape `(Q, L)`, or None.
        label_names: L names; None uses the column numbers.
    """
    num_labels = 0 if ref_labels is None else ref_labels.shape[1]
    names = [str(label) for label in range(num_labels)] if label_names is None else label_names
    results = []
    for query, (values, rows) in enumerate(zip(distances, indices, strict=True)):
        values, rows = values[rows >= 0], rows[rows >= 0]
        row_labels = np.zeros((len(rows), 0)) if ref_labels is None else ref_labels[rows]
        shared = [{} for _ in rows] if labels is None else shared_labels(labels[query], row_labels, names)
        results.append(
            [
                Hit(ids[row], float(value), tuple(names[label] for label in np.flatnonzero(present).tolist()), shares)
                for row, value, present, shares in zip(rows.tolist(), values, row_labels > 0, shared, strict=True)
            ]
        )
    return results


def shared_labels(labels: Array, ref_labels: Array, names: Sequence[str]) -> list[dict[str, float]]:
    """Return the shared labels of one row with each of several rows, and their shares of the Jaccard similarity.

    Args:
        labels: Labels of the row, shape `(L,)`.
        ref_labels: Labels of the other rows, shape `(K, L)`.
        names: L names.

    Returns:
        K dictionaries from name to share, highest first, ties in the order of `names`.
    """
    row, others = labels.astype(np.float64), ref_labels.astype(np.float64)
    common = np.minimum(row, others)
    union = np.maximum(row, others).sum(axis=1, keepdims=True)
    shares = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    order = np.argsort(-shares, axis=1, kind="stable")
    return [
        {names[label]: float(values[label]) for label in indices if values[label] > 0}
        for indices, values in zip(order.tolist(), shares, strict=True)
    ]
