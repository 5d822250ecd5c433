"""The common base class of the undersamplers and the oversamplers: input checks, and statistics of the labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from imblearn.base import BaseSampler
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import validate_data

from mlmetric.imbalance import mean_ir
from mlmetric.imbalance._imbalance_ratios import is_greater
from mlmetric.under_sampling._type_conversion import LabelArray, read_labels, to_cpu


class LabelSampler(BaseSampler):
    """Base class of all samplers for multi-label data: reads `X` and `y`, and counts the labels."""

    _sampling_type = "bypass"
    # If False, `X` may contain anything: only its rows and columns are counted.
    _uses_features: ClassVar[bool] = True

    def fit(self, X: Any, y: Any) -> LabelSampler:
        """Check the parameters and the data; `fit_resample` resamples.

        Args:
            X: Features of shape `(N, d)`, of the types that `fit_resample` accepts.
            y: Multi-hot labels of shape `(N, L)`, or class ids of shape `(N,)`.

        Returns:
            The sampler itself.

        Raises:
            TypeError: If `y` contains lists or sets of label names.
            ValueError: If a parameter is out of range, or `X` or `y` is not valid for `fit_resample`.
        """
        self._validate_params()
        self._check_X_y(X, y, self._uses_features)
        return self

    def _check_X_y(  # noqa: N802, imbalanced-learn's name
        self, X: Any, y: Any, uses_features: bool
    ) -> tuple[Any, LabelArray, bool]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        accepted: dict[str, Any] = {} if uses_features else {"dtype": None, "ensure_all_finite": False}
        X = validate_data(self, to_cpu(X), accept_sparse=["csr", "csc"], **accepted)
        labels, has_class_ids = read_labels(y, used_by=f"`{type(self).__name__}`")
        check_consistent_length(X, labels)
        self.sampling_strategy_ = dict(enumerate(labels.sum(axis=0).tolist()))
        return X, labels, has_class_ids

    def _count_labels(self, labels: LabelArray, result: LabelArray) -> list[str]:
        """Set the counts and MeanIR before and after, and return a warning if MeanIR increased."""
        self.counts_before_, self.counts_after_ = (part.sum(axis=0, dtype=np.int64) for part in (labels, result))
        self.mean_ir_before_, self.mean_ir_after_ = mean_ir(labels), mean_ir(result)
        if is_greater(self.mean_ir_after_, self.mean_ir_before_):
            return [f"raised MeanIR from {self.mean_ir_before_:.4g} to {self.mean_ir_after_:.4g}."]
        return []

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.input_tags.allow_nan = tags.input_tags.string = not self._uses_features
        return tags
