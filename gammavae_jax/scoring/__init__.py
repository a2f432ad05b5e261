"""Computes anomaly scores, p-values and thresholds, and fits detectors."""
