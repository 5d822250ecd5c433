"""Learn embeddings and predict labels with scikit-learn estimators, from features or from images and texts.

`MetricEmbedder` learns an embedding, and `MetricClassifier` also predicts labels. Both support pipelines and grid
searches. `ImageFeatures` and `TextFeatures` compute their input as the first step of a pipeline.
"""

from mlmetric.estimators._image_features import ImageFeatures
from mlmetric.estimators._metric_classifier import MetricClassifier
from mlmetric.estimators._metric_embedder import MetricEmbedder
from mlmetric.estimators._recipes import PAPER_HEAD, RECOMMENDED_HEAD
from mlmetric.text._text_features import TextFeatures

__all__ = ["PAPER_HEAD", "RECOMMENDED_HEAD", "ImageFeatures", "MetricClassifier", "MetricEmbedder", "TextFeatures"]
