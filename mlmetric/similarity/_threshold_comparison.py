"""Comparison of similarities with a threshold, independent of rounding errors."""

from __future__ import annotations

from math import copysign

import torch
from torch import Tensor

# Relative to the threshold: above the rounding error of a few operations in float32, below the smallest difference
# between similarities of sets of hundreds of labels.
_RELATIVE_TOLERANCE = 1e-6


def exceeds(similarity: Tensor, threshold: float) -> Tensor:
    """Return which similarities are larger than a threshold, by more than a rounding error.

    A similarity that equals the threshold does not exceed it, whatever its dtype and however it was computed: 2/3 as
    float16, float32 or float64, or `0.3 * Dice() + 0.7 * Overlap()` where both are 2/3, does not exceed 2/3. Values
    within a relative difference of 1e-6 count as equal to the threshold; a threshold of 0 is compared exactly.

    Args:
        similarity: Any shape, any real dtype or bool. In half precision it is compared with the threshold rounded to
            that precision.
        threshold: Any number but NaN.

    Returns:
        bool, the shape of `similarity`; False for NaN.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import exceeds
        >>> exceeds(torch.tensor([0.5, 2 / 3, 0.7], dtype=torch.float16), 2 / 3)
        tensor([False, False,  True])
    """
    return similarity > _shift(threshold, _RELATIVE_TOLERANCE, similarity.dtype)


def reaches(similarity: Tensor, threshold: float) -> Tensor:
    """Return which similarities are at least a threshold, up to a rounding error.

    A similarity that [`exceeds`][mlmetric.similarity.exceeds] counts as equal to the threshold reaches it.

    Args:
        similarity: Any shape, any real dtype or bool. In half precision it is compared with the threshold rounded to
            that precision.
        threshold: Any number but NaN.

    Returns:
        bool, the shape of `similarity`; False for NaN.

    Examples:
        >>> import torch
        >>> from mlmetric.similarity import reaches
        >>> reaches(torch.tensor([0.5, 2 / 3, 0.7], dtype=torch.float16), 2 / 3)
        tensor([False,  True,  True])
    """
    return similarity >= _shift(threshold, -_RELATIVE_TOLERANCE, similarity.dtype)


def _shift(threshold: float, share: float, dtype: torch.dtype) -> Tensor | float:
    """Shift a threshold upwards by a share of its absolute value, and round it to the dtype of the similarities."""
    shifted = float(threshold) * (1 + copysign(share, share * threshold))
    # A 0-d tensor on the CPU combines with tensors on any device without a synchronisation.
    return torch.tensor(shifted, dtype=dtype, device="cpu") if dtype.is_floating_point else shifted
