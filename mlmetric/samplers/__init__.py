"""Put several rows of each label into every batch, and count the positives that the batches contain."""

from mlmetric.samplers._multi_label_batch_sampler import MultiLabelBatchSampler
from mlmetric.samplers._positive_report import PositiveReport, positive_report

__all__ = ["MultiLabelBatchSampler", "PositiveReport", "positive_report"]
