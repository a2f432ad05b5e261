"""Run folders and saved detectors: checkpoints, resuming and atomic results."""
