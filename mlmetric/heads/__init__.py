"""Torch modules: frozen backbones, and heads that map features to embeddings or to label scores.

`FrozenBackbone` computes the features of images. `EmbeddingHead`, and `FusionHead` for several views of a row, map
features to an embedding. `ClassifierHead` and the heads with label vectors compute label scores. The ensembles and the
classes of late fusion combine trained modules.
"""

from mlmetric.heads._backbone_weights import WeightsUnavailableError
from mlmetric.heads._classifier_head import ClassifierHead
from mlmetric.heads._embedding_heads import EmbeddingEnsemble, EmbeddingHead
from mlmetric.heads._frozen_backbone import FrozenBackbone
from mlmetric.heads._fusion_head import FusionHead
from mlmetric.heads._label_graph_head import GraphConvolution, LabelGraphHead, cooccurrence_adjacency
from mlmetric.heads._label_networks import CalibratedClassifier, ClassifierEnsemble, LabelNetwork
from mlmetric.heads._late_fusion import LateFusionClassifier, LateFusionHead
from mlmetric.heads._semantic_projection_head import SemanticProjectionHead
from mlmetric.heads._standardize import Standardize

__all__ = [
    "CalibratedClassifier",
    "ClassifierEnsemble",
    "ClassifierHead",
    "EmbeddingEnsemble",
    "EmbeddingHead",
    "FrozenBackbone",
    "FusionHead",
    "GraphConvolution",
    "LabelGraphHead",
    "LabelNetwork",
    "LateFusionClassifier",
    "LateFusionHead",
    "SemanticProjectionHead",
    "Standardize",
    "WeightsUnavailableError",
    "cooccurrence_adjacency",
]
