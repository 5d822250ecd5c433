"""Undefined values (0/0): what takes their place, and means over the defined ones."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor


def check_zero_division(zero_division: float) -> None:
    """Check that `zero_division` is 0, 1 or NaN."""
    is_number = isinstance(zero_division, Real) and not isinstance(zero_division, bool)
    if not is_number or not (zero_division in (0, 1) or math.isnan(zero_division)):
        raise ValueError(f"`zero_division` must be 0.0, 1.0 or nan, got {zero_division!r}.")


def fill_undefined(values: Tensor, zero_division: float) -> Tensor:
    """Replace the NaN among `values` by `zero_division`."""
    check_zero_division(zero_division)
    return values if math.isnan(zero_division) else torch.where(values.isnan(), float(zero_division), values)


def mean_of_defined(values: Tensor, zero_division: float, *, weight: Tensor | None = None) -> Tensor:
    """Replace the NaN among `values` and average along the last dimension what is then defined.

    A mean over nothing is undefined, and replaced in turn.

    Args:
        values: Shape `(..., N)`, NaN where undefined.
        zero_division: 0, 1 or NaN.
        weight: Weight of each value, `(N,)` or `(B, N)`; the result is then 0-d or `(B,)`.
    """
    values = fill_undefined(values, zero_division)
    if weight is None:
        return fill_undefined(values.nanmean(dim=-1), zero_division)
    defined = (~values.isnan()).to(weight)
    return fill_undefined((weight @ values.nan_to_num()) / (weight @ defined), zero_division)
