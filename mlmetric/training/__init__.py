"""The two stages on cached features: fit an embedding by a metric loss, fit a classifier on the frozen embedding."""

from mlmetric.training._config import TrainingConfig
from mlmetric.training._loop import EpochRecord
from mlmetric.training._stages import apply_in_batches, fit_classifier, fit_embedding

__all__ = ["EpochRecord", "TrainingConfig", "apply_in_batches", "fit_classifier", "fit_embedding"]
