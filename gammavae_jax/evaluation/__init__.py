"""The challenge's metrics, score files and ground truth, and tables of results."""
