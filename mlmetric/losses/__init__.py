"""Losses for multi-hot labels: those of pytorch-metric-learning, our own on embeddings, and some on logits."""

from mlmetric.losses._base import LabelledBatch, MultiLabelBaseLoss
from mlmetric.losses._classification import AsymmetricLoss, TwoWayLoss
from mlmetric.losses._contrastive import MultiLabelSupConLoss
from mlmetric.losses._cross_batch_memory import MultiLabelCrossBatchMemory
from mlmetric.losses._label_proxies import HyP2Loss, MultiLabelProxyAnchorLoss
from mlmetric.losses._log_ratio import LogRatioLoss
from mlmetric.losses._multi_label import MultiLabelLoss
from mlmetric.losses._similarity import SimilarityRegressionLoss
from mlmetric.losses._triplet import MultiLabelTripletMarginLoss

__all__ = [
    "AsymmetricLoss",
    "HyP2Loss",
    "LabelledBatch",
    "LogRatioLoss",
    "MultiLabelBaseLoss",
    "MultiLabelCrossBatchMemory",
    "MultiLabelLoss",
    "MultiLabelProxyAnchorLoss",
    "MultiLabelSupConLoss",
    "MultiLabelTripletMarginLoss",
    "SimilarityRegressionLoss",
    "TwoWayLoss",
]
