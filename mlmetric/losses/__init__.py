"""Losses of pytorch-metric-learning for multi-hot labels."""

from mlmetric.losses._cross_batch_memory import MultiLabelCrossBatchMemory
from mlmetric.losses._multi_label import MultiLabelLoss

__all__ = ["MultiLabelCrossBatchMemory", "MultiLabelLoss"]
