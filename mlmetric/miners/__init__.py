"""Select pairs and triplets of a batch by label similarity.

`MultiLabelSemiHardMiner` selects triplets in which the negative is less similar to the anchor than the positive.
`MultiLabelMiner` applies a miner of pytorch-metric-learning to label matrices.
"""

from mlmetric.miners._multi_label_miner import MultiLabelMiner
from mlmetric.miners._semi_hard_miner import MultiLabelSemiHardMiner

__all__ = ["MultiLabelMiner", "MultiLabelSemiHardMiner"]
