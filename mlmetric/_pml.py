"""The one place that touches pytorch-metric-learning, and only what its versions 2 and 3 share."""

from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.miners import BaseMiner

__all__ = ["BaseDistance", "BaseMiner"]
