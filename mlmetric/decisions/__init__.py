"""Decisions from the scores of any multi-label classifier: thresholds, calibration, guarantees."""

from mlmetric.decisions._risk_control import conformal_fnr_threshold, ltt_fdr_threshold

__all__ = ["conformal_fnr_threshold", "ltt_fdr_threshold"]
