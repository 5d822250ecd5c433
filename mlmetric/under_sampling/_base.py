"""What all samplers share: checks, the way of `X` and `y` through them, and the account of what was done."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from math import floor
from typing import Any, ClassVar

import numpy as np
from imblearn.base import BaseSampler
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import validate_data

from mlmetric.imbalance import mean_ir
from mlmetric.under_sampling._data import LabelArray, Rows, on_host, read_labels, take_rows, write_labels


class BaseMultiLabelSampler(BaseSampler):
    """Base of the samplers for multi-label data; a sampler implements `_fit_resample`.

    imbalanced-learn's samplers refuse label matrices, or take rows with at most one label for classes. This base reads
    `y` as label sets. A two-dimensional `y` is multi-hot. A one-dimensional `y` holds class ids, each row's label set
    being its class (label i is the i-th class in sorted order), and is given back as it came; so does a single column
    with values other than 0 and 1.

    Every sampler records what it did and warns where that made things worse: where MeanIR rose, more than half of the
    rows went, or a label lost every positive.

    Attributes:
        sample_indices_: Rows of the input that the result consists of, ascending; `REMEDIAL`, which has some of them
            twice, calls it `source_indices_`.
        counts_before_: Positives of each label in `y`, int64 of shape `(L,)`.
        counts_after_: Positives of each label in the result, int64 of shape `(L,)`.
        removed_per_label_: Positives that each label lost, int64 of shape `(L,)`.
        mean_ir_before_: MeanIR of `y`.
        mean_ir_after_: MeanIR of the result.
        sampling_strategy_: dict of label index to its positives in `y`; the host wants it of a fitted sampler.
        n_features_in_: Number of columns of `X`.
        feature_names_in_: Column names of `X`, if it has any that are all strings.
    """

    _sampling_type = "bypass"
    # Whether `_fit_resample` looks at `X`; where not, `X` may hold whatever has rows and columns.
    _reads_features: ClassVar[bool] = True

    def fit(self, X: Any, y: Any) -> BaseMultiLabelSampler:
        """Check parameters and data; resampling is `fit_resample`.

        Args:
            X: Shape `(N, d)`.
            y: Multi-hot labels of shape `(N, L)`, or class ids of shape `(N,)`.

        Returns:
            The sampler itself.

        Raises:
            ValueError: If a parameter is out of range, or `X` or `y` is not what `fit_resample` takes.
        """
        self._validate_params()
        self._check_X_y(X, y, self._reads_features)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Resample the data.

        Args:
            X: Array, tensor, list, scipy sparse matrix or data frame of shape `(N, d)`. The samplers by nearest
                neighbours take finite numbers. The others go by `y` alone and take anything: NaN, strings, file paths.
            y: Multi-hot labels of shape `(N, L)`, any of these kinds, or class ids of shape `(N,)`.

        Returns:
            `X` and `y` resampled, each of the kind, the dtype and, for data frames, the index and columns it came in.

        Raises:
            TypeError: If the sampler edits labels and `y` is of another kind.
            ValueError: If a parameter is out of range, an entry of `y` NaN, or of an `X` that is looked at, `y` neither
                multi-hot nor class ids of at least two classes, the lengths differ, every row would go, or a class id
                would be cleared.
        """
        return self._resample(X, y, self._reads_features)

    def _resample(self, X: Any, y: Any, reads_features: bool, **context: Any) -> tuple[Any, Any]:
        self._validate_params()
        features, labels, holds_class_ids = self._check_X_y(X, y, reads_features)
        rows, edited = self._fit_resample(features, labels, **context)
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} would remove every one of the {len(labels)} rows. Choose parameters that spare "
                "some."
            )
        cleared = 0 if edited is None or not holds_class_ids else int((~edited.any(axis=1)).sum())
        if cleared:
            raise ValueError(
                f"`y` holds class ids, so each row must keep its class, but {type(self).__name__} would clear it in "
                f"{cleared} rows. Pass a multi-hot `y` of shape (N, L), or have such rows dropped."
            )
        for worse in self._give_account(labels, rows, labels[rows] if edited is None else edited):
            warnings.warn(f"{type(self).__name__} {worse}", UserWarning, stacklevel=3)
        X, y = take_rows(X, rows), take_rows(y, rows)
        return X, y if edited is None or holds_class_ids else write_labels(y, edited)

    @abstractmethod
    def _fit_resample(self, X: Any, labels: LabelArray) -> tuple[Rows, LabelArray | None]:
        """Return the rows of the result, in order, and their labels where these are not the rows' own."""

    def _check_X_y(  # noqa: N802, imbalanced-learn's name
        self, X: Any, y: Any, reads_features: bool
    ) -> tuple[Any, LabelArray, bool]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        taken: dict[str, Any] = {} if reads_features else {"dtype": None, "ensure_all_finite": False}
        X = validate_data(self, on_host(X), accept_sparse=["csr", "csc"], **taken)
        labels, holds_class_ids = read_labels(y)
        check_consistent_length(X, labels)
        self.sampling_strategy_ = dict(enumerate(labels.sum(axis=0).tolist()))
        return X, labels, holds_class_ids

    def _give_account(self, labels: LabelArray, rows: Rows, result: LabelArray) -> list[str]:
        """Record what becomes of `labels`, and return what is worse than it was."""
        self._record_rows(rows)
        self.counts_before_, self.counts_after_ = (part.sum(axis=0, dtype=np.int64) for part in (labels, result))
        self.removed_per_label_ = self.counts_before_ - self.counts_after_
        self.mean_ir_before_, self.mean_ir_after_ = mean_ir(labels), mean_ir(result)
        worse = []
        num_removed = len(labels) - len(rows)
        if 2 * num_removed > len(labels):
            worse.append(f"removed {num_removed} of {len(labels)} rows, more than half.")
        if exceeds(self.mean_ir_after_, self.mean_ir_before_):
            worse.append(f"raised MeanIR from {self.mean_ir_before_:.4g} to {self.mean_ir_after_:.4g}.")
        vanished = np.flatnonzero((self.counts_before_ > 0) & (self.counts_after_ == 0)).tolist()
        if vanished:
            worse.append(f"removed every positive of labels {vanished}; MeanIR no longer counts them.")
        return worse

    def _record_rows(self, rows: Rows) -> None:
        self.sample_indices_ = rows

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.sampler_tags.sample_indices = True
        tags.input_tags.allow_nan = tags.input_tags.string = not self._reads_features
        return tags


def removal_budget(num_rows: int, percentage: float) -> int:
    """Return how many rows a percentage of them is, rounded down.

    0.57 % of 10,000 rows must not become 56 because the product is below 57 in binary.
    """
    return floor(num_rows * percentage / 100 + 1e-9)


def exceeds(measure: float, bound: float) -> bool:
    """Say whether a measure of imbalance is above a bound by more than rounding."""
    return measure > bound * (1 + 1e-12)
