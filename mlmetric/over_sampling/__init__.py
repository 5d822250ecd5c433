"""Oversampling of multi-label data: imbalanced-learn samplers that add synthetic rows with rare labels.

Each sampler has `fit_resample(X, y)`, accepts arrays, tensors, lists, sparse matrices and pandas data frames, returns
the same types, supports `sklearn.base.clone`, and works inside `imblearn.pipeline.Pipeline`. `X` contains numbers, and
`y` is multi-hot of shape `(N, L)`, or contains one class id per row. The rows of the input come first in the result,
unchanged.
"""

from mlmetric.over_sampling._base_over_sampler import BaseOverSampler
from mlmetric.over_sampling._mlsmote import MLSMOTE
from mlmetric.over_sampling._mlsol import MLSOL

__all__ = ["MLSMOTE", "MLSOL", "BaseOverSampler"]
