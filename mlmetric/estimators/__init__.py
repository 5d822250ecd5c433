"""Features of images and texts, and the two stages as scikit-learn estimators, for grid searches and pipelines."""

from mlmetric.estimators._image_features import ImageFeatures
from mlmetric.estimators._metric_classifier import MetricClassifier
from mlmetric.estimators._metric_embedder import MetricEmbedder
from mlmetric.estimators._recipes import PAPER_HEAD, RECOMMENDED_HEAD
from mlmetric.text._text_features import TextFeatures

__all__ = ["PAPER_HEAD", "RECOMMENDED_HEAD", "ImageFeatures", "MetricClassifier", "MetricEmbedder", "TextFeatures"]
