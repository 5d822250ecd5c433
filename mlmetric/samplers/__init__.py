"""A batch sampler that puts several items of each label into a batch, and a report of the positives in batches."""

from mlmetric.samplers._multi_label_batch_sampler import MultiLabelBatchSampler
from mlmetric.samplers._positive_report import PositiveReport, positive_report

__all__ = ["MultiLabelBatchSampler", "PositiveReport", "positive_report"]
