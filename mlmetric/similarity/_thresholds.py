"""Where a similarity meets a threshold: rounding decides nothing."""

from __future__ import annotations

from math import copysign

import torch
from torch import Tensor

# Of a threshold: more than a few operations in float32 round, less than sets of hundreds of labels can differ by.
_ROUNDING = 1e-6


def exceeds(similarity: Tensor, threshold: float) -> Tensor:
    """Say which similarities are larger than a threshold, by more than rounding.

    A similarity that equals the threshold does not exceed it, whatever its dtype and however it was summed up: 2/3 as
    float16, float32 or float64, or `0.3 * Dice() + 0.7 * Overlap()` where both are 2/3, does not exceed 2/3. What lies
    within a millionth of the threshold counts as equal; a threshold of 0 is exact.

    Args:
        similarity: Any shape, any real dtype or bool. In half precision it is compared with the threshold rounded to
            that precision.
        threshold: Any number but NaN.

    Returns:
        bool, the shape of `similarity`; False for NaN.

    Examples:
        >>> exceeds(torch.tensor([0.5, 2 / 3, 0.7], dtype=torch.float16), 2 / 3)
        tensor([False, False,  True])
    """
    return similarity > _moved(threshold, _ROUNDING, similarity.dtype)


def reaches(similarity: Tensor, threshold: float) -> Tensor:
    """Say which similarities are at least a threshold, up to rounding.

    What `exceeds` counts as equal to the threshold reaches it.

    Args:
        similarity: Any shape, any real dtype or bool.
        threshold: Any number but NaN.

    Returns:
        bool, the shape of `similarity`; False for NaN.

    Examples:
        >>> reaches(torch.tensor([0.5, 2 / 3, 0.7], dtype=torch.float16), 2 / 3)
        tensor([False,  True,  True])
    """
    return similarity >= _moved(threshold, -_ROUNDING, similarity.dtype)


def _moved(threshold: float, share: float, dtype: torch.dtype) -> Tensor | float:
    """Move a threshold up by a share of its size, and round it to a dtype as similarities of that dtype are."""
    moved = float(threshold) * (1 + copysign(share, share * threshold))
    # A tensor on the CPU: one number goes beside tensors on any device without waiting for it.
    return torch.tensor(moved, dtype=dtype, device="cpu") if dtype.is_floating_point else moved
