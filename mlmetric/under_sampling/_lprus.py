"""Removal of rows of frequent label sets, at random: LP-RUS."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric._label_sets import label_set_keys
from mlmetric.under_sampling._base import BaseMultiLabelSampler, removal_budget
from mlmetric.under_sampling._data import LabelArray, Rows


class LPRUS(BaseMultiLabelSampler):
    """Remove rows of frequent label sets at random: label powerset random undersampling (LP-RUS).

    Rows with the same label set form a bag, rows without labels too. Bags larger than the mean give up equal shares of
    the budget, none more than brings it down to the mean; what one cannot give the larger ones give in its place. Which
    rows of a bag go is drawn, all equally likely. Whole rows that the shares leave over come from the largest bags, of
    equal ones from the last to appear.

    Args:
        percentage: Share of the rows to remove, in per cent, 0 or more and below 100; rounded down to whole rows. Fewer
            go where the bags above the mean do not have as many to give. 0 removes none.
        random_state: Seed or `numpy.random.RandomState` of the draws.

    Attributes:
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> y = np.array([[1, 0]] * 6 + [[0, 1]] * 4 + [[1, 1]] + [[0, 0]])  # four bags, three rows in the mean
        >>> sampler = LPRUS(percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(12).reshape(-1, 1), y)
        >>> sampler.removed_per_label_  # of a budget of 6 the second bag gives all it can, 1, and the first 3
        array([3, 1])

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). It is silent on
        shares that are no whole numbers.
    """

    _reads_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "percentage": [Interval(Real, 0, 100, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, *, percentage: float = 25, random_state: int | np.random.RandomState | None = None) -> None:
        super().__init__()
        self.percentage = percentage
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        random_state = check_random_state(self.random_state)
        _, first, bag, sizes = np.unique(
            label_set_keys(labels), return_index=True, return_inverse=True, return_counts=True
        )
        rows_of = np.split(np.argsort(bag, kind="stable"), np.cumsum(sizes)[:-1])
        order = np.lexsort((first, sizes))
        most = np.maximum(sizes + -len(labels) // len(sizes), 0)  # no bag below the mean
        budget = removal_budget(len(labels), self.percentage)
        kept = np.ones(len(labels), dtype=bool)
        for number, share in zip(order, _shares(most[order], budget), strict=True):
            if share:
                kept[random_state.permutation(rows_of[number])[:share]] = False
        return np.flatnonzero(kept), None


def _shares(most: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.int64]:
    """Share a budget out equally under a ceiling for each, which ascend; the last get what is left over."""
    shares = np.zeros_like(most)
    for place, ceiling in enumerate(most):
        num_left = len(most) - place
        if ceiling * num_left > budget:
            share, left_over = divmod(budget, num_left)
            shares[place:] = share
            shares[len(most) - left_over :] += 1
            break
        shares[place] = ceiling
        budget -= ceiling
    return shares
