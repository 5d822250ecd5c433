"""Checks for training that diverges."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

_DIVERGENCE_RATIO = 10.0
"""Training diverges if the ratio of the mean loss of an epoch to the first loss is above this."""
_MIN_FIRST_LOSS = 0.1
"""A smaller first loss is replaced by this: a loss near 0 can grow by a large factor in a few batches."""


def warn_if_diverging(loss: float, *, first_loss: float, epoch: int, lr: float) -> bool:
    """Warn if the mean loss of an epoch is far above the loss of the untrained module.

    With a suitable learning rate, the mean loss of each epoch is below the first loss.

    Args:
        loss: Mean loss of the epoch.
        first_loss: Loss of the first batch whose loss is not 0.
        epoch: Number of the epoch.
        lr: The learning rate.

    Returns:
        Whether training diverges.
    """
    diverges = loss > _DIVERGENCE_RATIO * max(abs(first_loss), _MIN_FIRST_LOSS)
    if diverges:
        warnings.warn(
            f"Training diverges: the loss of epoch {epoch} is {loss:.4g}, the first loss was {first_loss:.4g}. Lower "
            f"the learning rate ({lr}), or standardise the features.",
            stacklevel=4,
        )
    return diverges


def all_weights_finite(module: nn.Module) -> bool:
    """Return whether all trainable weights of a module, on any devices, are finite."""
    return all(bool(weights.detach().isfinite().all()) for weights in module.parameters() if weights.requires_grad)


def check_epoch_finite(total_loss: Tensor, module: nn.Module, *, epoch: int, lr: float) -> None:
    """Check loss and weights at the end of an epoch.

    Raises:
        FloatingPointError: If the sum of the losses or a trainable weight is not finite.
    """
    if not bool(total_loss.isfinite()):
        raise FloatingPointError(
            f"The loss is {total_loss.item()} in epoch {epoch}: lower the learning rate ({lr}), or standardise the "
            "features."
        )
    if not all_weights_finite(module):
        raise FloatingPointError(
            f"The weights are no longer finite after epoch {epoch}: lower the learning rate ({lr})."
        )


def check_outputs_finite(outputs: Tensor, *, epoch: int, lr: float) -> Tensor:
    """Return the outputs of a module for validation rows if they are finite.

    Raises:
        FloatingPointError: If an output is not finite.
    """
    if not bool(outputs.isfinite().all()):
        raise FloatingPointError(
            f"The outputs are no longer finite after epoch {epoch}: lower the learning rate ({lr}), or standardise the "
            "features."
        )
    return outputs
