"""Caps on the number of positives of each label, reached by removing labels from rows or by removing rows."""

from __future__ import annotations

from math import floor
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from mlmetric._label_rows import RandomRowRemover
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler
from mlmetric.under_sampling._type_conversion import LabelArray, RowIndices


class LabelCapUnderSampler(BaseMultiLabelSampler):
    """Cap the positives of frequent labels by removing these labels from random rows; the rows are kept.

    A label with more positives than the cap, `cap_ratio` times the mean count of the labels, is removed from random
    rows until its count equals the cap. By default, `X` is returned unchanged, and `y` with fewer labels. A row can
    lose its last label; `empty_rows` determines what happens to such a row. Rows without labels in the input are kept.

    Args:
        cap_ratio: The cap as a multiple of the mean count of all labels, > 0; infinity for no cap. Labels without
            positives count as 0 in the mean. The cap is rounded down to an integer of at least 1, so that no label
            loses all its positives.
        empty_rows: `"keep"`: each row with the label is equally likely to lose it, and rows that lose their last label
            are kept. `"skip"`: rows that have another label lose the label first, and a row loses its last label only
            if there are too few such rows. `"drop"`: like `"keep"`, and rows that lose their last label are removed.
        random_state: Seed or `numpy.random.RandomState` of the random choices, which are made label by label in column
            order. None uses numpy's global random state, which `numpy.random.seed` seeds.

    Attributes:
        cap_: The cap, the largest number of positives that a label keeps.
        capped_labels_: Indices of the labels that exceeded the cap, ascending.
        n_emptied_rows_: Number of rows that lost their last label, whether these were kept or removed.
        sample_indices_: Indices of the rows of the result in the input, ascending; all rows unless `empty_rows="drop"`.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result, never above `mean_ir_before_`.

    Raises:
        ValueError: In `fit_resample`, if `y` contains class ids and a row would lose its class; with
            `empty_rows="drop"` such rows are removed.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import LabelCapUnderSampler
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]])
        >>> sampler = LabelCapUnderSampler(cap_ratio=1, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(7).reshape(-1, 1), y)
        >>> sampler.cap_, sampler.removed_per_label_
        (3, array([2, 0, 0]))
        >>> len(y_resampled)
        7

    Source:
        The multi-label triplet pipeline that mlmetric follows, with a cap of twice the mean. It does not define what
        happens to rows that lose their last label, or how a cap is rounded.
    """

    _uses_features = False
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

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[RowIndices, LabelArray | None]:
        random_state = check_random_state(self.random_state)
        counts = labels.sum(axis=0, dtype=np.int64)
        cap = _label_cap(labels, self.cap_ratio)
        changed = labels.copy()
        capped = np.flatnonzero(counts > cap)
        for label in capped:
            rows = random_state.permutation(np.flatnonzero(labels[:, label]))
            if self.empty_rows == "skip":
                is_last = changed[rows].sum(axis=1) == 1
                rows = rows[np.argsort(is_last, kind="stable")]
            changed[rows[: counts[label] - cap], label] = 0
        emptied = labels.any(axis=1) & ~changed.any(axis=1)
        kept = ~emptied if self.empty_rows == "drop" else np.ones(len(labels), dtype=bool)
        self.cap_ = cap
        self.capped_labels_ = capped
        self.n_emptied_rows_ = int(emptied.sum())
        return np.flatnonzero(kept), changed[kept]

    def _record_statistics(self, labels: LabelArray, rows: RowIndices, result: LabelArray) -> list[str]:
        problems = super()._record_statistics(labels, rows, result)
        if len(rows) == len(labels) and 2 * self.n_emptied_rows_ > len(labels):
            problems.append(f"removed the last label of {self.n_emptied_rows_} of {len(labels)} rows, more than half.")
        return problems


class RandomLabelUnderSampler(BaseMultiLabelSampler):
    """Cap the positives of frequent labels by removing random rows with these labels.

    While a label has more positives than the cap, `cap_ratio` times the mean count of the labels, a random row with the
    most frequent label is removed; among equally frequent labels, the first one is used. The remaining rows keep all
    their labels. Labels that co-occur with frequent labels lose positives too; if these labels are rare,
    `LabelCapUnderSampler` or `MultiLabelTomekLinks(protect_minority=True)` keeps their positives.

    Args:
        cap_ratio: The cap as a multiple of the mean count of all labels, > 0; infinity for no cap. Labels without
            positives count as 0 in the mean. The cap is rounded down to an integer of at least 1.
        random_state: Seed or `numpy.random.RandomState` of the random choices. None uses numpy's global random state,
            which `numpy.random.seed` seeds.

    Attributes:
        cap_: The cap, the largest number of positives that a label keeps.
        capped_labels_: Indices of the labels that exceeded the cap, ascending.
        sample_indices_: Indices of the rows kept, ascending.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.

    Examples:
        >>> import numpy as np
        >>> from mlmetric.under_sampling import RandomLabelUnderSampler
        >>> y = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
        >>> sampler = RandomLabelUnderSampler(cap_ratio=1, random_state=0)
        >>> X_resampled, y_resampled = sampler.fit_resample(np.arange(7).reshape(-1, 1), y)
        >>> sampler.cap_, sampler.removed_per_label_
        (2, array([3, 0, 0]))
        >>> sampler.sample_indices_
        array([3, 4, 5, 6])

    Source:
        The cap is taken from the multi-label triplet pipeline that mlmetric follows. Deviation: rows are removed
        instead of labels.
    """

    _uses_features = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "cap_ratio": [Interval(Real, 0, float("inf"), closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(self, *, cap_ratio: float = 2.0, random_state: int | np.random.RandomState | None = None) -> None:
        super().__init__()
        self.cap_ratio = cap_ratio
        self.random_state = random_state

    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[RowIndices, LabelArray | None]:
        self.cap_ = _label_cap(labels, self.cap_ratio)
        self.capped_labels_ = np.flatnonzero(labels.sum(axis=0, dtype=np.int64) > self.cap_)
        remover = RandomRowRemover(labels, self.capped_labels_, check_random_state(self.random_state))
        while remover.counts.max() > self.cap_:
            remover.remove_row_with(int(remover.counts.argmax()))
        return np.flatnonzero(remover.remaining), None


def _label_cap(labels: LabelArray, cap_ratio: float) -> int:
    """Return the largest count that a label may have: a multiple of the mean count, rounded down, at least 1.

    The tolerance keeps a cap of 29 from becoming 28 because 0.29 * 100 is below 29 in floating point. A ratio of N L or
    more, infinity included, caps nothing.
    """
    cap: int = floor(min(cap_ratio, labels.size) * int(labels.sum()) / labels.shape[1] + 1e-9)
    return max(1, cap)
