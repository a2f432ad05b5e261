"""A run's folder: checkpoints, resuming, results written atomically."""
