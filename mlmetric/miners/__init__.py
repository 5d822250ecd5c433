"""Miners of pytorch-metric-learning for multi-hot labels."""

from mlmetric.miners._semi_hard import MultiLabelSemiHardMiner
from mlmetric.miners._wrapped import MultiLabelMiner

__all__ = ["MultiLabelMiner", "MultiLabelSemiHardMiner"]
