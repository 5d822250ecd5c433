"""Samplers that add rows of rare labels, compatible with imbalanced-learn."""
