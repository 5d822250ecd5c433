"""Miners of pytorch-metric-learning for multi-hot labels."""

from mlmetric.miners._semi_hard import MultiLabelSemiHardMiner

__all__ = ["MultiLabelSemiHardMiner"]
