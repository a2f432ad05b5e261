"""Run folders: checkpoints, resuming, and atomically written results."""
