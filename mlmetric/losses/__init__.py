"""Losses for label matrices: losses on embeddings, and losses on logits.

`MultiLabelLoss` applies a loss of pytorch-metric-learning to label matrices. Subclass `MultiLabelBaseLoss` for a loss
of your own. `AsymmetricLoss`, `ProperAsymmetricLoss` and `TwoWayLoss` are computed from logits; all other losses are
computed from embeddings.
"""

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
