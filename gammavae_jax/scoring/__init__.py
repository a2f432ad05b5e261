"""Anomaly scores, p-values and thresholds, and the fitting of a detector."""
