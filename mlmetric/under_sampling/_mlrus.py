"""Removal of random rows with majority labels: ML-RUS."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric._label_rows import RandomRowRemover
from mlmetric.imbalance import majority_labels, mean_ir
from mlmetric.imbalance._imbalance_ratios import is_greater
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler, num_rows_of
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices


class MLRUS(BaseMultiLabelSampler):
    """Remove random rows with majority labels: multi-label random undersampling (ML-RUS).

    In each round, one random row is removed for each majority label, in column order. A majority label is left out as
    soon as its imbalance ratio, computed from the remaining rows, reaches the MeanIR of the whole set. Sampling ends
    when `percentage` of the rows are removed or all majority labels are left out.

    Args:
        percentage: Maximum percentage of the rows to remove, at least 0 and below 100, rounded down to whole rows. 0
            removes no rows.
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
        >>> from mlmetric.under_sampling import MLRUS
        >>> y = np.array([[1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> sampler = MLRUS(percentage=50, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(8).reshape(-1, 1), y)
        >>> sampler.removed_per_label_, sampler.mean_ir_before_, sampler.mean_ir_after_
        (array([4, 0]), 2.0, 1.0)

    Source:
        Charte, Rivera, del Jesus, Herrera, Neurocomputing 163, 2015 (10.1016/j.neucom.2014.08.091). Deviation: the
        paper updates the imbalance ratio of a label only after removals for that label; here each removal updates the
        ratios of all labels, since a row can have several labels.
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
        limit = mean_ir(labels)
        majority = np.flatnonzero(majority_labels(labels))
        remover = RandomRowRemover(labels, majority, check_random_state(self.random_state))
        is_active = dict.fromkeys(majority.tolist(), True)
        num_left = num_rows_of(self.percentage, len(labels))
        while num_left and any(is_active.values()):
            for label in is_active:
                if num_left and is_active[label]:
                    remover.remove_row_with(label)
                    num_left -= 1
                    is_below = is_greater(limit * remover.counts, remover.counts.max())  # the ratio is below MeanIR
                    is_active = {other: active and is_below[other] for other, active in is_active.items()}
        return np.flatnonzero(remover.remaining), None
