"""Decisions from the scores of any multi-label classifier: thresholds, calibration, guarantees."""

from mlmetric.decisions._calibrated_classifier import MultiLabelCalibratedClassifier
from mlmetric.decisions._label_calibrator import LabelCalibrator

__all__ = ["LabelCalibrator", "MultiLabelCalibratedClassifier"]
