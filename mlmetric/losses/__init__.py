"""Losses for label matrices: those of pytorch-metric-learning, others on embeddings, and losses of logits."""

from mlmetric.losses._base_loss import MultiLabelBaseLoss
from mlmetric.losses._classification_losses import AsymmetricLoss, ProperAsymmetricLoss, TwoWayLoss
from mlmetric.losses._cross_batch_memory import MultiLabelCrossBatchMemory
from mlmetric.losses._loss_inputs import LossInputs
from mlmetric.losses._multi_label_loss import MultiLabelLoss
from mlmetric.losses._proxy_losses import HyP2Loss, MultiLabelProxyAnchorLoss
from mlmetric.losses._regression_losses import LogRatioLoss, SimilarityRegressionLoss
from mlmetric.losses._supcon_loss import MultiLabelSupConLoss
from mlmetric.losses._triplet_margin_loss import MultiLabelTripletMarginLoss

__all__ = [
    "AsymmetricLoss",
    "HyP2Loss",
    "LogRatioLoss",
    "LossInputs",
    "MultiLabelBaseLoss",
    "MultiLabelCrossBatchMemory",
    "MultiLabelLoss",
    "MultiLabelProxyAnchorLoss",
    "MultiLabelSupConLoss",
    "MultiLabelTripletMarginLoss",
    "ProperAsymmetricLoss",
    "SimilarityRegressionLoss",
    "TwoWayLoss",
]
