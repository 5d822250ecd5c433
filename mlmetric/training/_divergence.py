"""A warning where training diverges."""

from __future__ import annotations

import warnings

_DIVERGED = 10.0
"""How many times the first loss the mean loss of an epoch may be."""
_LOWEST_START = 0.1
"""A first loss below this counts as this: a few rows can multiply one near 0."""


def warn_of_divergence(loss: float, *, first_loss: float, epoch: int, lr: float) -> bool:
    """Warn of an epoch whose loss is far above that of the untrained module, which learning brings down.

    With a suitable learning rate, the mean loss of each epoch lies below the first loss.

    Args:
        loss: Mean loss of the epoch.
        first_loss: Loss of the first batch of all whose loss is not 0.
        epoch: Number of the epoch.
        lr: The learning rate.

    Returns:
        Whether it diverges.
    """
    diverges = loss > _DIVERGED * max(abs(first_loss), _LOWEST_START)
    if diverges:
        warnings.warn(
            f"Training diverges: the loss of epoch {epoch} is {loss:.4g}, and began at {first_loss:.4g}. Lower the "
            f"learning rate ({lr}), or standardise the features.",
            stacklevel=4,
        )
    return diverges
