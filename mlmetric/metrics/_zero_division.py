"""Undefined values (0/0) and means over defined values."""

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
    """Replace NaN in `values` with `zero_division`."""
    check_zero_division(zero_division)
    return values if math.isnan(zero_division) else torch.where(values.isnan(), float(zero_division), values)


def mean_of_defined(values: Tensor, zero_division: float, *, weight: Tensor | None = None) -> Tensor:
    """Replace NaN in `values` with `zero_division` and average the values that are not NaN along the last dimension.

    A mean over no values is undefined and replaced in the same way.

    Args:
        values: Shape `(..., N)`, NaN where undefined.
        zero_division: 0, 1 or NaN.
        weight: Weight of each value, `(N,)` or `(B, N)`; the result then has shape `()` or `(B,)`.
    """
    values = fill_undefined(values, zero_division)
    if weight is None:
        return fill_undefined(values.nanmean(dim=-1), zero_division)
    defined = (~values.isnan()).to(weight)
    return fill_undefined((weight @ values.nan_to_num()) / (weight @ defined), zero_division)
