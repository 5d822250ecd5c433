"""A cap on how often a label occurs, reached by dropping labels from rows."""

from __future__ import annotations

from math import floor
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from mlmetric.under_sampling._base import BaseMultiLabelSampler
from mlmetric.under_sampling._data import LabelArray, Rows


class LabelCapUnderSampler(BaseMultiLabelSampler):
    """Cap the frequent labels: drop them from randomly chosen rows, and keep the rows.

    A label counted more than `cap_ratio` times the mean count is dropped from as many of its rows as it has too many.
    `X` comes back as it is, `y` edited. A row can lose its last label; `empty_rows` says what then. Rows that came
    without labels stay as they are.

    Args:
        cap_ratio: The cap in multiples of the mean count over all labels, > 0, infinity for none; labels without
            positives count as 0 in the mean. The cap is rounded down, and is at least 1, so that no label vanishes.
        empty_rows: `"keep"`: any row that carries the label is as likely to lose it, and a row without labels stays;
            `"skip"`: rows that still carry another label lose it first, and a row loses its last label only where
            those do not suffice; `"drop"`: as `"keep"`, and rows that lost their last label are removed.
        random_state: Seed or `numpy.random.RandomState` of the draws, which are made label by label in column order.

    Attributes:
        cap_: The largest count that a label keeps.
        capped_labels_: Indices of the labels that were over the cap, ascending.
        n_emptied_rows_: Number of rows that lost their last label, whether kept or dropped.
        sample_indices_: Rows of the result in the input, ascending; all of them unless `empty_rows="drop"`.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result; never above.

    Raises:
        ValueError: In `fit_resample`, if `y` holds class ids and a row would lose its own; `empty_rows="drop"` removes
            such rows.

    Examples:
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]])
        >>> sampler = LabelCapUnderSampler(cap_ratio=1, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(7).reshape(-1, 1), y)
        >>> sampler.cap_, sampler.removed_per_label_
        (3, array([2, 0, 0]))
        >>> len(y_resampled)
        7

    Source:
        The multi-label triplet pipeline that mlmetric follows, with a cap of twice the mean. It is silent on rows that
        lose their last label and on a cap that is no integer: both are settled above.
    """

    _reads_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "cap_ratio": [Interval(Real, 0, float("inf"), closed="right")],
        "empty_rows": [StrOptions({"keep", "skip", "drop"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        cap_ratio: float = 2.0,
        empty_rows: Literal["keep", "skip", "drop"] = "keep",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__()
        self.cap_ratio = cap_ratio
        self.empty_rows = empty_rows
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        random_state = check_random_state(self.random_state)
        counts = labels.sum(axis=0, dtype=np.int64)
        cap = label_cap(labels, self.cap_ratio)
        edited = labels.copy()
        capped = np.flatnonzero(counts > cap)
        for label in capped:
            carriers = random_state.permutation(np.flatnonzero(labels[:, label]))
            if self.empty_rows == "skip":
                is_last = edited[carriers].sum(axis=1) == 1
                carriers = carriers[np.argsort(is_last, kind="stable")]
            edited[carriers[: counts[label] - cap], label] = 0
        emptied = labels.any(axis=1) & ~edited.any(axis=1)
        kept = ~emptied if self.empty_rows == "drop" else np.ones(len(labels), dtype=bool)
        self.cap_ = cap
        self.capped_labels_ = capped
        self.n_emptied_rows_ = int(emptied.sum())
        return np.flatnonzero(kept), edited[kept]

    def _give_account(self, labels: LabelArray, rows: Rows, result: LabelArray) -> list[str]:
        worse = super()._give_account(labels, rows, result)
        if len(rows) == len(labels) and 2 * self.n_emptied_rows_ > len(labels):
            worse.append(f"left {self.n_emptied_rows_} of {len(labels)} rows without their last label, more than half.")
        return worse


def label_cap(labels: LabelArray, cap_ratio: float) -> int:
    """Return the largest count that a label may have: a multiple of the mean count, rounded down, at least 1.

    A cap of 29 must not become 28 because 0.29 * 100 is below 29 in binary. A ratio of N L caps nothing, as do those
    above it, infinity among them.
    """
    cap: int = floor(min(cap_ratio, labels.size) * int(labels.sum()) / labels.shape[1] + 1e-9)
    return max(1, cap)
