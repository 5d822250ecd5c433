"""Decisions from the scores of any multi-label classifier: thresholds, calibration, guarantees."""
