"""A cap on how often a label occurs, reached by removing rows."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from mlmetric.under_sampling._base import BaseMultiLabelSampler
from mlmetric.under_sampling._carriers import CarrierDraws
from mlmetric.under_sampling._data import LabelArray, Rows
from mlmetric.under_sampling._label_cap import label_cap


class RandomLabelUnderSampler(BaseMultiLabelSampler):
    """Cap the frequent labels: remove rows that carry them, drawn at random.

    As long as a label is counted more than `cap_ratio` times the mean count, one of the rows that carry the most
    frequent label (of equal ones the first) goes, all of them equally likely. Rows keep their label sets, so labels
    that share rows with frequent ones are thinned too; where these are rare, `LabelCapUnderSampler` or
    `MultiLabelTomekLinks(protect_minority=True)` spares them.

    Args:
        cap_ratio: The cap in multiples of the mean count over all labels, > 0, infinity for none; labels without
            positives count as 0 in the mean. The cap is rounded down, and is at least 1.
        random_state: Seed or `numpy.random.RandomState` of the draws.

    Attributes:
        cap_: The largest count that a label keeps.
        capped_labels_: Indices of the labels that were over the cap, ascending.
        sample_indices_: Rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
        >>> sampler = RandomLabelUnderSampler(cap_ratio=1, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(7).reshape(-1, 1), y)
        >>> sampler.cap_, sampler.removed_per_label_
        (2, array([3, 0, 0]))
        >>> sampler.sample_indices_
        array([3, 4, 5, 6])

    Source:
        The cap is that of the multi-label triplet pipeline which mlmetric follows; removal of rows instead of labels
        is ours.
    """

    _reads_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "cap_ratio": [Interval(Real, 0, float("inf"), closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(self, *, cap_ratio: float = 2.0, random_state: int | np.random.RandomState | None = None) -> None:
        super().__init__()
        self.cap_ratio = cap_ratio
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        self.cap_ = label_cap(labels, self.cap_ratio)
        self.capped_labels_ = np.flatnonzero(labels.sum(axis=0, dtype=np.int64) > self.cap_)
        draws = CarrierDraws(labels, self.capped_labels_, check_random_state(self.random_state))
        while draws.counts.max() > self.cap_:
            draws.remove_one(int(draws.counts.argmax()))
        return np.flatnonzero(draws.alive), None
