"""Copies of rows that cannot be neighbours, for enough copies come before them."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.neighbors._exact import slices
from mlmetric.neighbors._rows import Rows


def first_copies(rows: Rows, num_copies: int, *, block: int) -> Tensor:
    """Return the numbers of the rows without those before which `num_copies` equal ones come.

    Args:
        rows: The rows.
        num_copies: How many of equal rows are kept.
        block: How many rows are read at once.

    Returns:
        int64, ascending.
    """
    every = torch.arange(rows.shape[0], device=rows.device)
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator).to(rows.device) | 1
    keys = torch.cat([_keys(rows.take(every[part]), factors) for part in slices(len(every), block)])
    order = keys.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    starts = first.nonzero().squeeze(1)[first.cumsum(0) - 1]
    late = every - starts >= num_copies
    crowded = torch.zeros_like(late)
    crowded[starts[late]] = True
    members = crowded[starts]
    for part in slices(int(members.sum()), block):
        same = rows.take(order[members][part]) == rows.take(order[starts[members]][part])
        if not bool(same.all()):  # unequal rows of one key: all are kept, which costs time and nothing else
            return every
    kept = torch.ones_like(late)
    kept[order[late]] = False
    return every[kept]


def _keys(values: Tensor, factors: Tensor) -> Tensor:
    """Return a number for each row, the same for equal rows, and for others hardly ever."""
    bits = (values + 0.0).view(torch.int64)  # -0.0 becomes 0.0
    return ((bits ^ (bits >> 29)) * factors).sum(dim=1)
