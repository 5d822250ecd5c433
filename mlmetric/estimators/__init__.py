"""The two stages as scikit-learn estimators, for pipelines, also those of imbalanced-learn, and grid searches."""

from mlmetric.estimators._metric_classifier import MetricClassifier
from mlmetric.estimators._metric_embedder import MetricEmbedder
from mlmetric.estimators._recipes import PAPER_HEAD, RECOMMENDED_HEAD

__all__ = ["PAPER_HEAD", "RECOMMENDED_HEAD", "MetricClassifier", "MetricEmbedder"]
