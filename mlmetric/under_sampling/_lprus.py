"""Removal of random rows with frequent label sets: LP-RUS."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric._label_rows import label_set_keys
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler, num_rows_of
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices


class LPRUS(BaseMultiLabelSampler):
    """Remove random rows with frequent label sets: label powerset random undersampling (LP-RUS).

    Rows with the same label set form a bag; so do rows without labels. The rows to remove are divided equally among the
    bags that are larger than the mean bag size. No bag becomes smaller than the mean: the larger bags contribute what a
    smaller bag cannot. If the division leaves a remainder, the largest bags lose one more row each; among bags of equal
    size, those whose first row has a higher index come first. The rows of a bag are equally likely to be removed.

    Args:
        percentage: Percentage of the rows to remove, at least 0 and below 100, rounded down to whole rows. Fewer rows
            are removed if the bags above the mean size cannot contribute that many. 0 removes no rows.
        random_state: Seed or `numpy.random.RandomState` of the random choices. None uses numpy's global random state,
            which `numpy.random.seed` seeds.

    Attributes:
        sample_indices_: Indices of the rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import LPRUS
        >>> y = np.array([[1, 0]] * 6 + [[0, 1]] * 4 + [[1, 1]] + [[0, 0]])  # four bags with a mean of three rows
        >>> sampler = LPRUS(percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(12).reshape(-1, 1), y)
        >>> sampler.removed_per_label_  # of 6 rows, the second bag can contribute 1 and the first bag 3
        array([3, 1])

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). The paper does not
        define the rounding of the numbers of rows.
    """

    _uses_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "percentage": [Interval(Real, 0, 100, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, *, percentage: float = 25, random_state: int | np.random.RandomState | None = None) -> None:
        super().__init__()
        self.percentage = percentage
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[RowIndices, LabelArray | None]:
        random_state = check_random_state(self.random_state)
        _, first, bag, sizes = np.unique(
            label_set_keys(labels), return_index=True, return_inverse=True, return_counts=True
        )
        rows_of = np.split(np.argsort(bag, kind="stable"), np.cumsum(sizes)[:-1])
        order = np.lexsort((first, sizes))
        limits = np.maximum(sizes + -len(labels) // len(sizes), 0)  # no bag below the mean
        num_removed = num_rows_of(self.percentage, len(labels))
        kept = np.ones(len(labels), dtype=bool)
        for number, share in zip(order, _divide_equally(num_removed, limits[order]), strict=True):
            if share:
                kept[random_state.permutation(rows_of[number])[:share]] = False
        return np.flatnonzero(kept), None


def _divide_equally(total: int, limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Divide a number into equal shares, each up to a limit; the limits ascend, and the last get the remainder."""
    shares = np.zeros_like(limits)
    for place, limit in enumerate(limits):
        num_left = len(limits) - place
        if limit * num_left > total:
            share, remainder = divmod(total, num_left)
            shares[place:] = share
            shares[len(limits) - remainder :] += 1
            break
        shares[place] = limit
        total -= limit
    return shares
