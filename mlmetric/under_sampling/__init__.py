"""Undersampling of multi-label data: imbalanced-learn samplers that take label matrices.

Each has `fit_resample(X, y)`, takes arrays, tensors, lists, sparse matrices and data frames and gives back what it got,
clones, and runs inside `imblearn.pipeline.Pipeline`. `y` is multi-hot of shape `(N, L)`, or one class id a row.
"""

from mlmetric.under_sampling._base import BaseMultiLabelSampler
from mlmetric.under_sampling._label_cap import LabelCapUnderSampler
from mlmetric.under_sampling._tomek import MultiLabelTomekLinks

__all__ = ["BaseMultiLabelSampler", "LabelCapUnderSampler", "MultiLabelTomekLinks"]
