"""Batches in which anchors have positives, and a report of how many do."""

from mlmetric.samplers._batches import MultiLabelBatchSampler
from mlmetric.samplers._report import PositiveReport, positive_report

__all__ = ["MultiLabelBatchSampler", "PositiveReport", "positive_report"]
