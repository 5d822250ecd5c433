"""0/0, and the means over what is defined."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mlmetric.metrics._checks import check_choice

Empty = Literal["nan", "zero", "one", "error"]


def settle(values: Tensor, empty: Empty, name: str, *, unit: str | None = "label") -> Tensor:
    """Apply the policy for 0/0 to the NaN among `values`: one a `unit` along the last dimension, or results."""
    check_choice(empty, "empty", Empty)
    if empty == "nan":
        return values
    undefined = values.isnan()
    if empty == "error" and bool(undefined.any()):
        where = ""
        if unit is not None and undefined.ndim == 1:
            rows = undefined.nonzero()
            where = f" at {unit} {rows[0].item()}, the first of {len(rows)} among {len(undefined)}"
        raise ValueError(
            f'`{name}` is undefined (0/0){where}. Pass `empty="nan"` to leave it out of means, or `empty="zero"`.'
        )
    return torch.where(undefined, float(empty == "one"), values)


def settled_mean(
    values: Tensor, empty: Empty, name: str, *, unit: str = "label", weight: Tensor | None = None
) -> Tensor:
    """Average the defined among settled `values` along the last dimension; the mean of nothing is settled in turn.

    `weight`: of each value, `(N,)` or `(B, N)`; the result is then 0-d or `(B,)`.
    """
    values = settle(values, empty, name, unit=unit)
    if weight is None:
        return settle(values.nanmean(dim=-1), empty, name, unit=None)
    defined = (~values.isnan()).to(weight)
    return settle((weight @ values.nan_to_num()) / (weight @ defined), empty, name, unit=None)
