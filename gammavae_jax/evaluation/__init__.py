"""The challenge's metrics, its score files and ground truth, and result tables."""
