"""Train embedding heads and linear classifiers on cached features, in plain PyTorch.

`fit_embedding` trains an embedding with a metric loss, and `fit_classifier` a classifier on features or on a frozen
embedding. The estimators of [mlmetric.estimators][] call them with recommended settings.
"""

from mlmetric.training._config import TrainingConfig
from mlmetric.training._logistic_regression import fit_logistic_regression
from mlmetric.training._rows import apply_in_batches
from mlmetric.training._stages import fit_classifier, fit_embedding
from mlmetric.training._trainer import EpochRecord

__all__ = [
    "EpochRecord",
    "TrainingConfig",
    "apply_in_batches",
    "fit_classifier",
    "fit_embedding",
    "fit_logistic_regression",
]
