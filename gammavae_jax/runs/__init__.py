"""A run's folder: checkpoint, resume, results."""
