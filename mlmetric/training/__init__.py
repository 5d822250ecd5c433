"""The two stages on cached features: an embedding, by a metric loss, then a classifier on the frozen embedding."""

from mlmetric.training._config import TrainingConfig
from mlmetric.training._stages import apply_in_batches, fit_classifier, fit_embedding
from mlmetric.training._trainer import EpochRecord

__all__ = ["EpochRecord", "TrainingConfig", "apply_in_batches", "fit_classifier", "fit_embedding"]
