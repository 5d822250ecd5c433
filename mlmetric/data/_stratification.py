"""Assignment of rows to parts of given sizes, with each label in each part in proportion to the part's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from mlmetric.labels import LabelsLike, check_labels

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def multi_hot_rows(labels: LabelsLike, name: str) -> sparse.csr_array:
    """Read multi-hot labels of any kind as a sparse matrix; a sparse matrix is not made dense.

    Returns:
        float64 ones, shape `(N, L)`, with sorted column indices. Neither absent nor missing labels are stored.

    Raises:
        TypeError: If `labels` does not contain numbers.
        ValueError: If it is not two-dimensional, or an entry is not 0, 1 or NaN.
    """
    if sparse.issparse(labels):
        rows = sparse.csr_array(labels, copy=True)
        rows.sum_duplicates()
        rows.data[rows.data != rows.data] = 0
        rows.eliminate_zeros()
        is_multi_hot = bool((rows.data == 1).all())
    else:
        matrix: Any = check_labels(labels, name=name, allow_missing=True)
        positive = matrix > 0
        is_multi_hot = bool(((matrix == positive) | (matrix != matrix)).all())
        rows = sparse.csr_array(positive.cpu().numpy() if isinstance(positive, torch.Tensor) else positive)
    if not is_multi_hot:
        raise ValueError(f"`{name}` must be multi-hot, 0 or 1, got soft labels; use `{name} >= threshold`.")
    return rows.astype(np.float64)


def stratify(labels: sparse.csr_array, sizes: Integers, *, generator: torch.Generator | None) -> Integers:
    """Assign each row to a part, so that each part has exactly its size and labels are spread in proportion.

    Rows are assigned label by label; the next label is the one with the fewest unassigned rows. The deficit of a part
    in a label is the number of rows with this label that it should still receive, minus its share of the unassigned
    rows with this label. A row is assigned to the part with the largest score: the sum, over the row's labels, of the
    deficit divided by the number of unassigned rows with the label, plus the deficit in size divided by the square root
    of the number of unassigned rows. Since deficits are relative to shares, the largest part has no advantage. Since
    the size is always part of the score, rare labels cannot fill some parts and leave the frequent labels, which come
    last, to the others.

    Args:
        labels: Multi-hot, shape `(N, L)`, from `multi_hot_rows`.
        sizes: Number of rows of each part, int64, shape `(P,)`, >= 0, with the sum N.
        generator: Draws the order of the rows of a label and breaks ties between parts. With None, rows keep their
            order, and the first of several equally good parts is chosen.

    Returns:
        The part of each row, int64, shape `(N,)`.

    Source:
        After Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, from which the
        order of labels is taken. Deviations: they use one label of a row, and the absolute number of rows that a part
        still needs, and do not fix the sizes of the parts.
    """
    num_rows = labels.shape[0]
    shares = sizes / max(num_rows, 1)
    remaining = np.bincount(labels.indices, minlength=labels.shape[1])
    # Deficits as they will be once the next row is assigned, except in the part that gets it.
    deficits = _target_counts(remaining, sizes) - shares * (remaining[:, None] - 1)
    size_deficits = np.where(sizes > 0, shares, -np.inf)
    changes = shares - np.eye(len(sizes))
    capacities = sizes.tolist()
    num_left = num_rows
    tie_breakers = np.zeros((num_rows, len(sizes)))
    if generator is not None:
        tie_breakers = torch.rand(num_rows, len(sizes), generator=generator, dtype=torch.float64).numpy() * 1e-9
    part_of = np.full(num_rows, -1)
    starts, columns = labels.indptr.tolist(), labels.indices
    for rows in _rarest_label_first(labels.tocsc(), remaining):
        unassigned = rows[part_of[rows] < 0]
        if generator is not None:
            unassigned = unassigned[torch.randperm(len(unassigned), generator=generator).numpy()]
        for row in unassigned.tolist():
            own = columns[starts[row] : starts[row + 1]]
            own_deficits, own_remaining = deficits[own], remaining[own]
            scores = (1 / own_remaining) @ own_deficits + size_deficits / math.sqrt(num_left) + tie_breakers[row]
            part = int(scores.argmax())
            part_of[row] = part
            deficits[own] = own_deficits + changes[part]
            remaining[own] = own_remaining - 1
            size_deficits += changes[part]
            num_left -= 1
            capacities[part] -= 1
            if not capacities[part]:
                size_deficits[part] = -np.inf
    return part_of


def _rarest_label_first(labels: sparse.csc_array, remaining: Integers) -> Iterator[Integers]:
    """Yield the rows of the label with the fewest unassigned rows, until no label has any; then all rows."""
    while remaining.any():
        label = np.where(remaining > 0, remaining, labels.shape[0] + 1).argmin()
        yield labels.indices[labels.indptr[label] : labels.indptr[label + 1]]
    yield np.arange(labels.shape[0])


def _target_counts(counts: Integers, sizes: Integers) -> Floats:
    """Return how many rows of each label each part should get, shape `(L, P)`: in proportion, and at least one.

    For a label with fewer rows than there are parts, the target is the proportion alone. Rows that a small part gets in
    excess of its proportion are taken from the other parts, in proportion to their rows in excess of one.
    """
    in_proportion = counts[:, None] * (sizes / max(sizes.sum(), 1))
    least = (sizes > 0).astype(np.float64)
    beyond = np.maximum(in_proportion - least, 0)
    total = beyond.sum(axis=1, keepdims=True)
    spare = counts[:, None] - least.sum()
    at_least_one = least + beyond * spare / np.where(total > 0, total, 1)
    targets: Floats = np.where(spare >= 0, at_least_one, in_proportion)
    return targets
