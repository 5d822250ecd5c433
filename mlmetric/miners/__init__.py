"""Miners for label matrices: a miner by graded label similarity, and the miners of pytorch-metric-learning."""

from mlmetric.miners._multi_label_miner import MultiLabelMiner
from mlmetric.miners._semi_hard_miner import MultiLabelSemiHardMiner

__all__ = ["MultiLabelMiner", "MultiLabelSemiHardMiner"]
