"""What every metric asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TensorLike = Tensor | npt.ArrayLike
"""A tensor, or what `numpy.asarray` turns into an array of numbers."""


_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def to_tensor(values: TensorLike, name: str) -> Tensor:
    """Turn `values` into a detached tensor of real numbers; Python floats keep their double precision."""
    if not isinstance(values, Tensor):
        try:
            # torch shares memory with writable arrays of positive strides only.
            values = torch.as_tensor(np.require(values, requirements=["C", "W"]))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"`{name}` must be a tensor or an array of numbers, got {values!r:.80}: {error}") from error
    if values.dtype in _UNSIGNED:  # for which torch has hardly an operation
        values = values.long()
    if values.is_complex():
        raise TypeError(f"`{name}` must hold real numbers, got {values.dtype}.")
    return values.detach()


def count_true(mask: Tensor, *, dim: int) -> Tensor:
    """Count the True entries of a bool matrix along a dimension: int64."""
    if mask.device.type == "cpu":
        # Ten times faster than torch's sum of a bool tensor.
        return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=dim))
    return mask.sum(dim=dim)


def has_nan(values: Tensor) -> bool:
    """Tell whether any number is NaN."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        # By numpy, in one thread: torch's would then wait busily, and take processors from the sorts that follow.
        return bool(np.isnan(values.numpy()).any())
    return bool(values.isnan().any())


def check_choice(value: object, name: str, literal: Any) -> None:
    """Check that `value` is one of the strings of a `Literal` type."""
    choices: Sequence[str] = get_args(literal)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_weight(sample_weight: TensorLike | None, num_rows: int, device: torch.device) -> Tensor | None:
    """Check the weights of rows, `(N,)` or `(B, N)`: float64 on `device`."""
    if sample_weight is None:
        return None
    weight = to_tensor(sample_weight, "sample_weight")
    if weight.ndim not in (1, 2) or weight.shape[-1] != num_rows:
        raise ValueError(
            f"`sample_weight` must have shape ({num_rows},), one number a row, or (B, {num_rows}) for B weightings, "
            f"got {tuple(weight.shape)}."
        )
    weight = weight.to(device, torch.float64)
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ValueError(f"`sample_weight` must hold finite numbers >= 0, got {_first_bad(weight):g}.")
    return weight


def _first_bad(weight: Tensor) -> float:
    return weight[~((weight >= 0) & weight.isfinite())][0].item()
