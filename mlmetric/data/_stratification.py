"""Rows assigned to parts of given sizes, so that each label is spread over the parts in proportion to the sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]


def stratify(labels: npt.NDArray[np.bool_], sizes: _Integers, *, generator: torch.Generator) -> _Integers:
    """Assign each row to a part: to each part exactly its size, each label in proportion as far as the sizes allow.

    Rows are taken label by label, the label with the fewest rows left first. How far a part lags behind in a label is
    the number of rows it is still to get, less its share of those that are left. A row goes to the part with the
    largest sum of lags over the row's labels, each divided by the rows that the label has left to catch up with, plus
    the lag in size, divided by the square root of the rows that are left. So the largest part is not favoured, and
    sizes are kept up throughout: otherwise rare labels would fill some parts, and frequent ones, which come last, the
    rest.

    Args:
        labels: Shape `(N, L)`.
        sizes: Number of rows of each part, int64, shape `(P,)`, >= 0, adding up to N.
        generator: Draws the order of the rows of a label, and one of several parts that are equally good.

    Returns:
        The part of each row, int64, shape `(N,)`.

    Source:
        After Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011: the order of
        labels is theirs. They go by one label of a row, by the absolute number of rows that a part still wants, and let
        sizes follow.
    """
    num_rows = len(labels)
    shares = sizes / max(num_rows, 1)
    carriers = np.ascontiguousarray(labels.T)
    remaining = labels.sum(axis=0, dtype=np.int64)
    # Lags as they will be once the next row is assigned, but for the part that gets it.
    lags = _wanted(remaining, sizes) - shares * (remaining[:, None] - 1)
    size_lags = np.where(sizes > 0, shares, -np.inf)
    changes = shares - np.eye(len(sizes))
    capacities = sizes.tolist()
    num_left = num_rows
    ties = torch.rand(num_rows, len(sizes), generator=generator, dtype=torch.float64).numpy() * 1e-9
    part_of = np.full(num_rows, -1)
    for carried in _rarest_first(carriers, remaining):
        rows = np.flatnonzero(carried & (part_of < 0))
        for row in rows[torch.randperm(len(rows), generator=generator).numpy()].tolist():
            own = np.flatnonzero(labels[row])
            own_lags = lags[own]
            part = int(((1 / remaining[own]) @ own_lags + size_lags / math.sqrt(num_left) + ties[row]).argmax())
            part_of[row] = part
            lags[own] = own_lags + changes[part]
            remaining[own] -= 1
            size_lags += changes[part]
            num_left -= 1
            capacities[part] -= 1
            if not capacities[part]:
                size_lags[part] = -np.inf
    return part_of


def _rarest_first(carriers: npt.NDArray[np.bool_], remaining: _Integers) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the mask of the rows of each label, by how many are left at the time; then one of all rows."""
    while remaining.any():
        yield carriers[np.where(remaining > 0, remaining, carriers.shape[1] + 1).argmin()]
    yield np.ones(carriers.shape[1], dtype=np.bool_)


def _wanted(counts: _Integers, sizes: _Integers) -> _Floats:
    """Return how many rows of each label each part should get, shape `(L, P)`: in proportion, and at least one.

    A label with fewer rows than there are parts is wanted in proportion only. What a small part gets beyond its
    proportion comes from the others, in proportion to what they have beyond one row.
    """
    in_proportion = counts[:, None] * (sizes / max(sizes.sum(), 1))
    least = (sizes > 0).astype(np.float64)
    beyond = np.maximum(in_proportion - least, 0)
    total = beyond.sum(axis=1, keepdims=True)
    spare = counts[:, None] - least.sum()
    at_least_one = least + beyond * spare / np.where(total > 0, total, 1)
    wanted: _Floats = np.where(spare >= 0, at_least_one, in_proportion)
    return wanted
