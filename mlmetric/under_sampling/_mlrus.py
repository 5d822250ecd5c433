"""Removal of rows of majority labels, at random: ML-RUS."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric.imbalance import majority_labels, mean_ir
from mlmetric.under_sampling._base import BaseMultiLabelSampler, removal_budget
from mlmetric.under_sampling._carriers import CarrierDraws
from mlmetric.under_sampling._data import LabelArray, Rows


class MLRUS(BaseMultiLabelSampler):
    """Remove rows of majority labels at random: multi-label random undersampling (ML-RUS).

    The majority labels take turns in the order of the columns; each removes one of the rows that carry it, all of them
    equally likely. A label is out as soon as its imbalance ratio, by the rows that are left, reaches the MeanIR of the
    whole set. It ends when the budget is spent or no label is in.

    Args:
        percentage: Share of the rows that may be removed, in per cent, 0 or more and below 100; rounded down to
            whole rows. 0 removes none.
        random_state: Seed or `numpy.random.RandomState` of the draws.

    Attributes:
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> y = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> sampler = MLRUS(percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(8).reshape(-1, 1), y)
        >>> sampler.removed_per_label_, sampler.mean_ir_before_, sampler.mean_ir_after_
        (array([4, 0]), 2.0, 1.0)

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). It looks at a
        label's ratio after that label's own removals; here every removal counts, for rows carry several labels.
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
        limit = mean_ir(labels) * (1 - 1e-12)
        majority = np.flatnonzero(majority_labels(labels))
        draws = CarrierDraws(labels, majority, check_random_state(self.random_state))
        is_in = dict.fromkeys(majority.tolist(), True)
        budget = removal_budget(len(labels), self.percentage)
        while budget and any(is_in.values()):
            for label in is_in:
                if budget and is_in[label]:
                    draws.remove_one(label)
                    budget -= 1
                    reached = draws.counts.max() >= limit * draws.counts
                    is_in = {other: still and not reached[other] for other, still in is_in.items()}
        return np.flatnonzero(draws.alive), None
