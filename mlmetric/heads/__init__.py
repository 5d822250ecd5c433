"""Torch modules around a frozen backbone: the backbone itself, embedding heads, classifier heads."""

from mlmetric.heads._backbone import FrozenBackbone, WeightsUnavailableError
from mlmetric.heads._classifier import ClassifierHead
from mlmetric.heads._embedding import EmbeddingHead
from mlmetric.heads._standardize import Standardize

__all__ = ["ClassifierHead", "EmbeddingHead", "FrozenBackbone", "Standardize", "WeightsUnavailableError"]
