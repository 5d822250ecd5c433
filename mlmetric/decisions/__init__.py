"""Turn scores into decisions: thresholds, calibrated probabilities, and error rates with a guarantee.

The scores may come from any multi-label classifier. `MultiLabelThresholdClassifier` and
`MultiLabelCalibratedClassifier` wrap a scikit-learn classifier; `LabelCalibrator` and the functions
take scores and labels.
"""

from mlmetric.decisions._calibrated_classifier import MultiLabelCalibratedClassifier
from mlmetric.decisions._label_calibrator import LabelCalibrator
from mlmetric.decisions._risk_control import conformal_fnr_threshold, ltt_fdr_threshold
from mlmetric.decisions._row_rules import PredictedCount, TopK
from mlmetric.decisions._threshold_classifier import MultiLabelThresholdClassifier
from mlmetric.decisions._threshold_rules import ExpectedCost, MinPrecision, MinRecall
from mlmetric.decisions._threshold_table import ThresholdTable
from mlmetric.metrics._threshold_rules import FBeta, ThresholdCounts, ThresholdRule

__all__ = [
    "ExpectedCost",
    "FBeta",
    "LabelCalibrator",
    "MinPrecision",
    "MinRecall",
    "MultiLabelCalibratedClassifier",
    "MultiLabelThresholdClassifier",
    "PredictedCount",
    "ThresholdCounts",
    "ThresholdRule",
    "ThresholdTable",
    "TopK",
    "conformal_fnr_threshold",
    "ltt_fdr_threshold",
]
