"""Run folders and saved detectors: checkpoints, resuming, atomic writes of results."""
