"""Undersampling of multi-label data: imbalanced-learn samplers that accept label matrices.

Each sampler has `fit_resample(X, y)`, accepts arrays, tensors, lists, sparse matrices and data frames, returns the same
types, supports `sklearn.base.clone`, and works inside `imblearn.pipeline.Pipeline`. `y` is multi-hot of shape `(N, L)`,
or contains one class id per row.
"""

from mlmetric.under_sampling._base_neighbor_sampler import BaseNeighborSampler
from mlmetric.under_sampling._base_sampler import BaseMultiLabelSampler
from mlmetric.under_sampling._label_cap import LabelCapUnderSampler, RandomLabelUnderSampler
from mlmetric.under_sampling._lprus import LPRUS
from mlmetric.under_sampling._mlenn import MLeNN
from mlmetric.under_sampling._mlrus import MLRUS
from mlmetric.under_sampling._mlul import MLUL
from mlmetric.under_sampling._remedial import REMEDIAL
from mlmetric.under_sampling._tomek_links import MultiLabelTomekLinks

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
