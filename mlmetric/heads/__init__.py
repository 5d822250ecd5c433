"""Torch modules around a frozen backbone: the backbone itself, embedding heads, classifier and label-graph heads."""

from mlmetric.heads._backbone import FrozenBackbone, WeightsUnavailableError
from mlmetric.heads._classifier import ClassifierHead
from mlmetric.heads._embedding import EmbeddingHead
from mlmetric.heads._ensemble import EmbeddingEnsemble
from mlmetric.heads._graph import GraphConvolution, cooccurrence_adjacency
from mlmetric.heads._label_graph import LabelGraphHead
from mlmetric.heads._semantic import SemanticProjectionHead
from mlmetric.heads._standardize import Standardize

__all__ = [
    "ClassifierHead",
    "EmbeddingEnsemble",
    "EmbeddingHead",
    "FrozenBackbone",
    "GraphConvolution",
    "LabelGraphHead",
    "SemanticProjectionHead",
    "Standardize",
    "WeightsUnavailableError",
    "cooccurrence_adjacency",
]
