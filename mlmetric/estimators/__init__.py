"""Scikit-learn estimators over the two stages: an embedding that follows several labels, and a classifier on it.

They go where scikit-learn's go: pipelines, imbalanced-learn's among them, grid searches, pickles.
"""

from mlmetric.estimators._classifier import MetricClassifier
from mlmetric.estimators._embedder import PAPER_HEAD, RECOMMENDED_HEAD, MetricEmbedder

__all__ = ["PAPER_HEAD", "RECOMMENDED_HEAD", "MetricClassifier", "MetricEmbedder"]
