"""Undersampling of multi-label data: imbalanced-learn samplers that take label matrices.

Each has `fit_resample(X, y)`, takes arrays, tensors, lists, sparse matrices and data frames and gives back what it got,
clones, and runs inside `imblearn.pipeline.Pipeline`. `y` is multi-hot of shape `(N, L)`, or one class id a row.
"""

from mlmetric.under_sampling._base import BaseMultiLabelSampler
from mlmetric.under_sampling._label_cap import LabelCapUnderSampler
from mlmetric.under_sampling._lprus import LPRUS
from mlmetric.under_sampling._mlenn import MLeNN
from mlmetric.under_sampling._mlrus import MLRUS
from mlmetric.under_sampling._mlul import MLUL
from mlmetric.under_sampling._neighbor_base import BaseNeighborSampler
from mlmetric.under_sampling._random_label import RandomLabelUnderSampler
from mlmetric.under_sampling._remedial import REMEDIAL
from mlmetric.under_sampling._tomek import MultiLabelTomekLinks

__all__ = [
    "LPRUS",
    "MLRUS",
    "MLUL",
    "REMEDIAL",
    "BaseMultiLabelSampler",
    "BaseNeighborSampler",
    "LabelCapUnderSampler",
    "MLeNN",
    "MultiLabelTomekLinks",
    "RandomLabelUnderSampler",
]
