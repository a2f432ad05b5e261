"""Anomaly scores, p-values and thresholds; fitting a detector."""
