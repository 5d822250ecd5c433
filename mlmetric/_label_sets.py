"""Label sets as values that can be sorted and compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def label_set_keys(labels: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Pack each row of a multi-hot matrix `(N, L)`, L above 0, into one value: shape `(N,)`, equal where the sets are.

    Eight labels take one byte, so that these values sort many times faster than rows of numbers.
    """
    packed = np.packbits(labels != 0, axis=1)
    return packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
