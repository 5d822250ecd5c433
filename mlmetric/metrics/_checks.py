"""What every metric asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlmetric.labels import check_labels

TensorLike = Tensor | npt.ArrayLike
"""A tensor, or what `numpy.asarray` turns into an array of numbers."""


def to_tensor(values: TensorLike, name: str) -> Tensor:
    """Turn `values` into a detached tensor of real numbers; Python floats keep their double precision."""
    if not isinstance(values, Tensor):
        try:
            # torch shares memory with writable arrays of positive strides only.
            values = torch.as_tensor(np.require(values, requirements=["C", "W"]))
        except (TypeError, ValueError) as error:
            raise TypeError(f"`{name}` must be a tensor or an array of numbers, got {values!r:.80}: {error}") from error
    if values.is_complex():
        raise TypeError(f"`{name}` must hold real numbers, got {values.dtype}.")
    return values.detach()


def check_scores(preds: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
    """Check scores and truth: `preds` floating (integers and bools become float64), `target` bool beside it."""
    preds, target = to_tensor(preds, "preds"), to_tensor(target, "target")
    check_labels(target, name="target", validate_args=False)
    if preds.shape != target.shape:
        raise ValueError(
            f"`preds` and `target` must have the same shape (N, L), got {tuple(preds.shape)} and {tuple(target.shape)}."
        )
    preds = preds if preds.is_floating_point() else preds.double()
    if bool(preds.isnan().any()):
        raise ValueError(f"`preds` must hold no NaN, got one at {_first(preds.isnan())}.")
    if target.dtype != torch.bool:
        positive = target == 1
        fractional = ~(positive | (target == 0))
        if bool(fractional.any()):
            raise ValueError(
                f"`target` must be hard multi-hot, 0 or 1, got {target[fractional][0].item():g} at "
                f"{_first(fractional)}. Soft labels become hard by a comparison, as `target >= 0.5`."
            )
        target = positive
    return preds, target.to(preds.device)


def decide(preds: TensorLike, target: TensorLike, threshold: float | TensorLike) -> tuple[Tensor, Tensor]:
    """Check scores, truth and threshold: the decisions and the truth, both bool `(N, L)`."""
    preds, target = check_scores(preds, target)
    given = to_tensor(threshold, "threshold")
    num_labels = preds.shape[1]
    if given.shape not in ((), (num_labels,)):
        raise ValueError(
            f"`threshold` must be a number or one a label, shape ({num_labels},), got shape {tuple(given.shape)}."
        )
    if bool(given.isnan().any()):
        raise ValueError(f"`threshold` must hold no NaN, got {given.tolist()}.")
    return preds >= given.to(preds), target


def check_choice(value: object, name: str, literal: Any) -> None:
    """Check that `value` is one of the strings of a `Literal` type."""
    choices: Sequence[str] = get_args(literal)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _first(mask: Tensor) -> str:
    row, label = mask.nonzero()[0].tolist()
    return f"row {row}, label {label}"
