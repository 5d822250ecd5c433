"""Copies of rows that cannot be neighbours, for enough copies come before them."""

from __future__ import annotations

import torch
from torch import Tensor

from mlmetric.neighbors._rows import Rows


def first_copies(rows: Rows, num_copies: int) -> Tensor:
    """Return the numbers of the rows without those before which `num_copies` equal ones come.

    Args:
        rows: The rows.
        num_copies: How many of equal rows are kept.

    Returns:
        int64, ascending.
    """
    every = torch.arange(rows.shape[0], device=rows.device)
    generator = torch.Generator("cpu").manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator, device="cpu") | 1
    keys = rows.keys(factors.to(rows.device))
    order = keys.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = keys[order[1:]] != keys[order[:-1]]
    starts = first.nonzero().squeeze(1)[first.cumsum(0) - 1]
    late = every - starts >= num_copies
    if not bool(late.any()):
        return every
    crowded = torch.zeros_like(late)
    crowded[starts[late]] = True
    members = crowded[starts]
    if not rows.are_equal(order[members], order[starts[members]]):
        return every  # unequal rows of one key: all are kept, which costs time and nothing else
    kept = torch.ones_like(late)
    kept[order[late]] = False
    return every[kept]
