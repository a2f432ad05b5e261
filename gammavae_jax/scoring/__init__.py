"""Residuals to anomaly scores, p-values and thresholds; fitting a detector."""
