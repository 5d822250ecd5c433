"""The rows of a stage: checks of rows and labels, and the outputs of a module for rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlmetric._evaluation_mode import evaluation_mode
from mlmetric._label_matrix import has_missing
from mlmetric.labels import LabelsLike, label_tensor
from mlmetric.training._trainer import device_of


def apply_in_batches(module: nn.Module, inputs: Tensor, *, batch_size: int = 4096) -> Tensor:
    """Apply a module to rows in batches, in evaluation mode and without gradients.

    Args:
        module: The module; its mode, and the mode of each submodule, is restored afterwards. Several threads may apply
            the same module while no thread trains it.
        inputs: Shape `(N, D)` or `(N, ...)`; each batch is moved to the device of the module.
        batch_size: Number of rows in a batch.

    Returns:
        Shape `(N, ...)`, on the device of the module.

    Examples:
        >>> import torch
        >>> from mlmetric.training import apply_in_batches
        >>> apply_in_batches(torch.nn.Linear(8, 2), torch.zeros(5, 8), batch_size=2).shape
        torch.Size([5, 2])
    """
    device = device_of(module, default=inputs.device)
    with evaluation_mode(module), torch.no_grad():
        return torch.cat([module(rows.to(device)) for rows in torch.split(inputs, batch_size)])


def check_missing_support(labels: Tensor, validation: tuple[Tensor, Tensor] | None, **parts: Any) -> None:
    """Check that the parts of the objective support the missing labels of the rows, if there are any.

    Args:
        labels: Labels to train on.
        validation: The validation rows and their labels; None if there are none.
        **parts: Losses and miners by the name of the argument. None, or a `supports_missing_labels` of True, is
            accepted.

    Raises:
        ValueError: If a loss or miner does not support them; the message names it.
    """
    if not any(map(has_missing, [labels] if validation is None else [labels, validation[1]])):
        return
    for name, part in parts.items():
        if part is not None and not getattr(part, "supports_missing_labels", False):
            raise ValueError(
                f"`{name}` must support missing labels, since labels are NaN, which means not annotated; got "
                f"`{getattr(part, '__name__', type(part).__name__)}`, whose attribute `supports_missing_labels` is not "
                "True. Use a loss or miner of mlmetric, set this attribute if yours ignores NaN, or remove these rows."
            )


def read_rows(inputs: Tensor, labels: LabelsLike) -> Tensor:
    """Check the rows to train on, and return their labels as a tensor, with NaN for missing labels."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"The rows to train on must be a torch.Tensor, got {type(inputs).__name__}.")
    target = label_tensor(labels, allow_missing=True)
    if inputs.ndim < 2 or len(inputs) != len(target) or len(inputs) < 2:
        raise ValueError(
            "Rows to train on and their labels must have shapes (N, D) (or (N, ...)) and (N, L) with N >= 2, "
            f"got {tuple(inputs.shape)} and {tuple(target.shape)}."
        )
    return target


def read_validation(
    validation: tuple[Tensor, LabelsLike] | None, inputs: Tensor, labels: Tensor, *, hard: bool
) -> tuple[Tensor, Tensor] | None:
    """Check the validation rows, and return them with their labels as a tensor, with NaN for missing labels."""
    if validation is None:
        return None
    rows, target = validation[0], label_tensor(validation[1], name="validation[1]", allow_missing=True)
    if not isinstance(rows, Tensor):
        raise TypeError(f"The rows of `validation` must be a torch.Tensor, got {type(rows).__name__}.")
    if not len(rows) == len(target) > 0:
        raise ValueError(
            f"`validation` must have rows and labels of the same length, at least 1, got {len(rows)} and {len(target)}."
        )
    for name, part, trained_on in (("rows", rows, inputs), ("labels", target, labels)):
        if part.shape[1:] != trained_on.shape[1:]:
            raise ValueError(
                f"The {name} of `validation` must have shape (N, {', '.join(map(str, trained_on.shape[1:]))}) like "
                f"those to train on, got {tuple(part.shape)}."
            )
    if hard and bool(((target > 0) & (target < 1)).any()):
        raise ValueError(
            "`validation` must have labels 0 or 1, since a classifier is scored on them, got soft labels. Choose a "
            "threshold, such as `labels >= 0.5`."
        )
    return rows, target
